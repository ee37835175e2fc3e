//! Integration tests: real servers, faulty servers, real files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking, and no other crate uses its items"
)]

mod adopted;
mod archive;
mod audit;
mod auth;
mod auth_process;
mod cli;
mod cli_reads;
mod client_errors;
mod clients;
mod clock;
mod concurrency_limit;
mod copy;
mod coverage;
mod crash;
mod deploy;
mod docs;
mod erasure;
mod events;
mod events_multi_instance;
mod events_slow_clients;
mod export;
mod flow;
mod formats;
mod full_disk;
mod generated;
mod http;
mod influx;
mod influx_cli;
mod influx_delivery;
mod influx_erasure;
mod influx_faults;
mod influx_foreign_points;
mod influx_installation;
mod influx_names;
mod influx_refresh;
mod influx_spool;
mod installation_key;
mod library;
mod lists;
mod live;
mod live_processes;
mod load;
mod many;
mod merge;
mod metrics;
mod min_users;
mod model;
mod observability;
mod open_loop;
#[path = "../../benches/support/open_loop.rs"]
#[allow(dead_code, reason = "a test uses part of it")]
mod open_loop_source;
mod openapi;
mod outages;
mod overlap;
mod overload;
mod page;
mod page_settings;
mod postgres;
mod postgres_faults;
mod postgres_service;
mod process;
mod read_only;
mod read_path;
mod recipes;
mod redis_cache;
mod redis_feed;
mod redis_published;
mod redis_replies;
mod redis_store;
mod redis_store_expiry;
mod redis_store_faults;
mod refresh_groups;
mod refresher;
mod segment_deletion;
mod segment_metrics;
mod segment_notes;
mod segment_settings;
mod serve;
mod sets;
mod snippets;
mod startup;
mod store_equivalence;
mod supervision;
mod support;
mod traces;
mod unknown_names;
mod unmodified_clients;
mod watch;
