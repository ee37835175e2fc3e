//! Code that several benches share: servers, traffic, recording, open-loop load, and a direct Redis client.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each bench uses only some of these items"
)]

#[path = "../../tests/it/support/influxd.rs"]
pub mod influxd;
pub mod open_loop;
pub mod peer;
#[path = "../../tests/it/support/postgres.rs"]
pub mod postgres;
#[path = "../../tests/it/support/program.rs"]
pub mod program;
#[path = "../../tests/it/support/redis.rs"]
pub mod redis;
pub mod resp;
#[path = "../../tests/it/support/servers.rs"]
pub mod servers;
#[path = "../../tests/it/support/service.rs"]
pub mod service;
pub mod stores;
pub mod traffic;

/// A number from an environment variable.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// The resident memory of a process in bytes; `self` is the current process.
pub fn resident(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() * 1024
}
