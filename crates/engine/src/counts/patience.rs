//! How long a reader waits for the store, by what else there is to answer with.

use std::time::Duration;

/// With a number that is too old to be trusted. A count in a store on the network takes a second or two for a segment
/// of millions of users, so one that takes longer than this is more likely stalled: a reader is better served by the
/// last known count, called stale. The time runs from when the count was first asked for, whoever asked: nobody waits
/// for a stalled one again.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// With a number that is as good as a cached one while the cache is unavailable: enough for a store that is quick.
pub(super) const GLANCE: Duration = Duration::from_millis(50);
/// With nothing, or when the number has to be of now: below the time limits of HTTP clients and load balancers.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
