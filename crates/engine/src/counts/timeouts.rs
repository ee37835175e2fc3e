//! Read timeouts: how long a reader waits for the store, depending on which other count is known.

use std::time::Duration;

/// The timeout when an earlier count is known that is too old. A store on the network counts a segment of millions of
/// users in a second or two. A count that takes longer than this has probably stalled, and the reader gets the last known
/// count, marked stale. The timeout starts at the first request for the count, so later readers do not wait for a
/// stalled count again.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout when a recent count is known while the cache is unavailable. It is long enough for a fast store.
pub(super) const QUICK_READ_TIMEOUT: Duration = Duration::from_millis(50);
/// The timeout when no count is known, or when the count must be fresh. It is below the timeouts of HTTP clients and load
/// balancers.
pub(super) const MAX_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout instead of [`MAX_READ_TIMEOUT`] once probes of the store fail. A load balancer then asks an instance that has an
/// earlier count.
pub(super) const UNRESPONSIVE_READ_TIMEOUT: Duration = Duration::from_secs(2);
