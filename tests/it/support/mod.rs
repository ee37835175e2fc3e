//! What several tests need: servers to talk to, and ways to break them.

pub mod app;
pub mod binary;
pub mod events;
pub mod fault_server;
pub mod influxd;
pub mod jwt;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod redis;
pub mod schema;
pub mod servers;
pub mod service;
pub mod stores;
pub mod switchable;
