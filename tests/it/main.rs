//! Integration tests: real servers, faulty servers, real files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking, and no other crate uses its items"
)]

mod archive;
mod audit;
mod auth;
mod auth_process;
mod bounded;
mod cli;
mod clients;
mod clock;
mod copy;
mod crash;
mod deploy;
mod docs;
mod erasure;
mod events;
mod events_many;
mod events_shared;
mod formats;
mod full_disk;
mod http;
mod influx;
mod influx_cli;
mod influx_delivery;
mod influx_erasure;
mod influx_faults;
mod influx_installation;
mod influx_names;
mod influx_spool;
mod influx_strangers;
mod influx_together;
mod library;
mod lists;
mod load;
mod made_up;
mod metrics;
mod mistakes;
mod model;
mod one_number;
mod open_loop;
#[path = "../../benches/support/open_loop.rs"]
#[allow(dead_code, reason = "a test uses part of it")]
mod open_loop_source;
mod openapi;
mod outages;
mod overload;
mod page;
mod postgres;
mod postgres_faults;
mod postgres_service;
mod process;
mod read_only;
mod read_path;
mod redis_cache;
mod redis_replies;
mod redis_store;
mod redis_store_faults;
mod refresher;
mod serve;
mod start;
mod supervision;
mod support;
mod together;
mod watch;
