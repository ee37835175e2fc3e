//! The options of the published counts in Redis.

use std::time::Duration;

use crate::redis::{Prefix, RedisServer};

/// The options of [`RedisPublishedCounts`](super::RedisPublishedCounts).
#[derive(Debug, Clone)]
pub struct RedisPublishedOptions {
    /// The address of the server or cluster.
    pub server: RedisServer,
    /// The prefix of every key. Deployments with different prefixes can share a Redis.
    pub prefix: Prefix,
    /// The ticks whose changes are kept for followers. Redis keeps up to about 100 more.
    pub max_entries: u64,
    /// The changes that are kept for followers, in bytes; one tick may exceed it. The older half is removed when they are more.
    pub max_bytes: u64,
    /// How long everything is kept without a tick.
    pub keep: Duration,
    /// The timeout of a request, which includes waiting for the first connection.
    pub command_timeout: Duration,
    /// The timeout for connecting. Calls don't wait for it: the background task does.
    pub connect_timeout: Duration,
}

impl RedisPublishedOptions {
    /// Options for `server` with the defaults.
    pub fn new(server: RedisServer, prefix: Prefix) -> Self {
        Self {
            server,
            prefix,
            // At least 200 s of ticks, which come five times a second.
            max_entries: 1_000,
            // About 200,000 changed segments. A follower that needs more loads the board faster.
            max_bytes: 8 << 20,
            keep: Duration::from_hours(24),
            command_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_millis(250),
        }
    }
}
