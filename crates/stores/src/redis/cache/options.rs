//! The options of the Redis cache: its server, timeouts and TTLs.

use std::time::Duration;

use crate::redis::{Prefix, RedisServer};

/// The options of a [`RedisCache`](super::RedisCache).
#[derive(Debug, Clone)]
pub struct RedisCacheOptions {
    /// The address of the server or cluster.
    pub server: RedisServer,
    /// The prefix of every key. Deployments with different prefixes can share a Redis.
    pub prefix: Prefix,
    /// The TTL of the counts of a segment, from the last one. Longer than a count is trusted: when the store is
    /// unavailable, an old count is better than none.
    pub keep_counts: Duration,
    /// How long a segment stays known without new pairs or counts. At least the window: after that it is empty.
    pub keep_segments: Duration,
    /// How far ahead of Redis's clock the `as_of` of a count may be. A count further ahead comes from an instance whose
    /// clock is wrong; its `as_of` is set to Redis's time.
    pub max_ahead: Duration,
    /// The timeout of the smallest request, which includes waiting for the first connection. Requests with more
    /// arguments have a longer one.
    pub command_timeout: Duration,
    /// The timeout for connecting. Calls don't wait for it: the background task does.
    pub connect_timeout: Duration,
}

impl RedisCacheOptions {
    /// Options for `server` with the default timeouts. `trusted` is how long readers trust a count, `window` the
    /// widest window.
    pub fn new(server: RedisServer, prefix: Prefix, trusted: Duration, window: Duration) -> Self {
        let day = Duration::from_hours(24);
        Self {
            server,
            prefix,
            keep_counts: day.max(trusted.saturating_mul(4)),
            keep_segments: window.saturating_add(day),
            // Synchronized clocks differ by less.
            max_ahead: Duration::from_secs(1),
            command_timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_millis(250),
        }
    }
}
