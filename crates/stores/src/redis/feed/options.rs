//! The options of the feed in Redis.

use std::time::Duration;

use crate::redis::{Prefix, RedisServer};

/// The options of a [`RedisFeed`](super::RedisFeed).
#[derive(Debug, Clone)]
pub struct RedisFeedOptions {
    /// The address of the server or cluster.
    pub server: RedisServer,
    /// The prefix of every key. Deployments with different prefixes can share a Redis.
    pub prefix: Prefix,
    /// The records that the feed holds at most, in bytes. A feed that no reader trims loses its older half when it is full.
    pub max_bytes: u64,
    /// How long the feed is kept without an append.
    pub keep: Duration,
    /// The timeout of a request, which includes waiting for the first connection.
    pub command_timeout: Duration,
    /// The timeout for connecting. Calls don't wait for it: the background task does.
    pub connect_timeout: Duration,
}

impl RedisFeedOptions {
    /// Options for `server` with the defaults.
    pub fn new(server: RedisServer, prefix: Prefix) -> Self {
        Self {
            server,
            prefix,
            // About 30 million pairs: a quarter of an hour at 30,000 pairs a second.
            max_bytes: 256 << 20,
            keep: Duration::from_hours(24),
            command_timeout: Duration::from_millis(250),
            connect_timeout: Duration::from_millis(250),
        }
    }
}
