//! How long the cache waits for Redis, and how long it keeps things there.

use std::time::Duration;

use crate::redis::{Prefix, RedisServer};

/// What a [`RedisCache`](super::RedisCache) needs to know.
#[derive(Debug, Clone)]
pub struct RedisCacheOptions {
    /// Where Redis is.
    pub server: RedisServer,
    /// What every key begins with; deployments with different prefixes share a Redis without meeting.
    pub prefix: Prefix,
    /// How long a count is kept that nobody renews. Longer than a count is trusted: when the store is away, an
    /// old count is better than none. Pending counters are kept twice as long.
    pub keep_counts: Duration,
    /// How long a segment stays known of which nothing is heard. The window at least: after that it is empty.
    pub keep_segments: Duration,
    /// The most that a call may take, connecting included.
    pub command_timeout: Duration,
    /// The most that connecting may take. Calls don't wait for it: the background does.
    pub connect_timeout: Duration,
}

impl RedisCacheOptions {
    /// Options for `server`, with counts that are trusted for `trusted` over windows up to `window`.
    pub fn new(server: RedisServer, prefix: Prefix, trusted: Duration, window: Duration) -> Self {
        let day = Duration::from_hours(24);
        Self {
            server,
            prefix,
            keep_counts: day.max(trusted.saturating_mul(4)),
            keep_segments: window.saturating_add(day),
            command_timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_millis(250),
        }
    }
}
