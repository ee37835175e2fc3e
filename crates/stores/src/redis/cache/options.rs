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
    /// How far ahead of Redis' clock a count may be. One further ahead was made by a clock that is wrong, and is
    /// taken for one as of now.
    pub max_ahead: Duration,
    /// The most that the smallest request may take, connecting included; one with many arguments has more.
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
            // Clocks that are kept right differ by less.
            max_ahead: Duration::from_secs(1),
            command_timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_millis(250),
        }
    }
}
