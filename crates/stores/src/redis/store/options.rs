//! The options of the Redis store.

use std::time::Duration;

use crate::redis::{ChunkLimits, ClientOptions, Prefix, RedisServer};
use domain::TimeFrame;

/// Arguments of one chunk: a little more than those of a full write (see `WRITES_AT_ONCE`).
const ARGUMENTS_AT_ONCE: usize = 110_000;
/// Timeout for each argument of a request: two seconds for a full write, twenty times what an idle server takes.
const PER_ARGUMENT: Duration = Duration::from_micros(20);

/// The options of a [`RedisStore`](super::RedisStore).
#[derive(Debug, Clone)]
pub struct RedisStoreOptions {
    /// The address of the server or cluster.
    pub server: RedisServer,
    /// The prefix of every key. Deployments with different prefixes can share a Redis.
    pub prefix: Prefix,
    /// The widest window, and the resolution of the slots.
    pub frame: TimeFrame,
    /// A digest of `user_key`, if one is set. Pairs recorded with another key are an error.
    pub user_key: Option<String>,
    /// The timeout of a small request; one with many pairs has a longer one. A healthy server takes milliseconds. With
    /// a slow disk, a server may delay writes by two seconds (`appendfsync everysec`), which leaves one second.
    pub command_timeout: Duration,
    /// The timeout for connecting. Calls don't wait for it: the background task does.
    pub connect_timeout: Duration,
    /// How long an empty segment must be unused before archiving removes it from the list. Far longer than a write
    /// takes plus the clock skew between instances: otherwise a segment could be removed while a pair is written.
    pub quiet: Duration,
}

impl RedisStoreOptions {
    /// Options with default timeouts and no `user_key`.
    pub fn new(server: RedisServer, prefix: Prefix, frame: TimeFrame) -> Self {
        Self {
            server,
            prefix,
            frame,
            user_key: None,
            command_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            quiet: Duration::from_hours(24),
        }
    }

    pub(super) fn client(&self) -> ClientOptions {
        ClientOptions {
            server: self.server.clone(),
            limits: ChunkLimits {
                max_arguments: ARGUMENTS_AT_ONCE,
                base_timeout: self.command_timeout,
                timeout_per_argument: PER_ARGUMENT,
                // The store itself limits the pairs in flight.
                max_in_flight: usize::MAX,
            },
            connect_timeout: self.connect_timeout,
            // Enough for a slot in migration. A failover takes longer; the spool bridges it.
            cluster_retries: 3,
            cluster_retry_wait: Duration::from_millis(20),
            user: "the store",
            meanwhile: "pairs wait in the spool, if there is one",
        }
    }
}
