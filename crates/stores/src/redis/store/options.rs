//! What a Redis store needs to know.

use std::time::Duration;

use crate::redis::{LinkOptions, Pieces, Prefix, RedisServer};
use domain::TimeFrame;

/// Arguments sent at once: a little more than those of a full write (see `WRITES_AT_ONCE`).
const ARGUMENTS_AT_ONCE: usize = 110_000;
/// More time for each argument of a request: two seconds for a full write, which takes an idle server a twentieth.
const PER_ARGUMENT: Duration = Duration::from_micros(20);

/// Where Redis is, what keys begin with, and how patient to be.
#[derive(Debug, Clone)]
pub struct RedisStoreOptions {
    /// Where Redis is.
    pub server: RedisServer,
    /// What every key begins with; deployments with different prefixes share a Redis without meeting.
    pub prefix: Prefix,
    /// The window and the resolution.
    pub frame: TimeFrame,
    /// A digest of `user_key`, where there is one: pairs that were recorded with another one are refused.
    pub user_key: Option<String>,
    /// The most that a small call to Redis may take; one with many pairs has more. A healthy one takes milliseconds; one whose disk is slow may hold
    /// writes up for two seconds (`appendfsync everysec`), and has then a second left.
    pub command_timeout: Duration,
    /// The most that connecting may take. Calls don't wait for it: the background does.
    pub connect_timeout: Duration,
    /// How long nothing must have been heard of an empty segment before archiving takes it off the list. Far longer
    /// than a write may be under way and clocks of instances may differ, or a segment could go as a pair comes.
    pub quiet: Duration,
}

impl RedisStoreOptions {
    /// Options with the defaults of everything that has one.
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

    pub(super) fn link(&self) -> LinkOptions {
        LinkOptions {
            server: self.server.clone(),
            pieces: Pieces {
                at_once: ARGUMENTS_AT_ONCE,
                shortest: self.command_timeout,
                per_argument: PER_ARGUMENT,
                // The store bounds the pairs under way itself.
                under_way: usize::MAX,
            },
            connect_timeout: self.connect_timeout,
            // Bridges a slot that moves; a failover takes longer and is the spool's business.
            cluster_retries: 3,
            cluster_retry_wait: Duration::from_millis(20),
            user: "the store",
            meanwhile: "pairs wait in the spool, if there is one",
        }
    }
}
