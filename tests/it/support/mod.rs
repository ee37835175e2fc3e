//! Code that several tests share: servers, and ways to break them.

pub mod app;
pub mod closed_port;
pub mod disks;
pub mod events;
pub mod faketime;
pub mod fault_server;
pub mod influxd;
pub mod jwt;
pub mod languages;
pub mod postgres;
pub mod program;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod rig;
pub mod schema;
pub mod servers;
pub mod service;
pub mod shared_cache;
pub mod stderr;
pub mod stores;
pub mod switchable;
pub mod tokens;
pub mod wait;

use std::time::Duration;

use domain::TimeFrame;

/// The default frame of a service.
pub fn two_weeks() -> TimeFrame {
    let frame = TimeFrame::new(
        Duration::from_hours(14 * 24),
        Duration::from_secs(60),
        Duration::from_secs(300),
    );
    frame.unwrap()
}
