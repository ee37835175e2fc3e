//! Exact distinct users per segment, now.

pub mod app;
pub mod audit;
pub mod auth;
pub mod cache;
pub mod cli;
mod clock_watch;
pub mod config;
pub mod counts;
pub mod events;
pub mod http;
pub mod ingest;
mod known_segments;
pub mod open_files;
pub mod readiness;
pub mod redis;
pub mod refresher;
pub mod rounds;
pub mod shutdown;
pub mod store;
pub mod sweeper;
pub mod telemetry;
pub mod transfer;
pub mod version;
pub mod wiring;
mod words;

pub use app::Headcount;
