//! Options of the InfluxDB store.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use domain::{FingerprintKey, TimeFrame};

/// The server, the names of its buckets, and the limits and timeouts of requests.
#[derive(Clone)]
pub struct InfluxOptions {
    /// The server's URL. It may have a path.
    pub url: String,
    /// The organisation's name.
    pub org: String,
    /// The bucket of the pairs.
    pub bucket: String,
    /// The bucket of the trend.
    pub trend_bucket: String,
    /// The token that every request sends.
    pub token: String,
    /// The window and the resolution.
    pub frame: TimeFrame,
    /// The installation's key. `None` means the key that is stored in InfluxDB, which is created if it is missing. If a
    /// key is given, the store does not compare its options with those of other instances.
    pub key: Option<FingerprintKey>,
    /// A digest of `user_key`, if it is set. Instances with different keys refuse to share a bucket.
    pub user_key: Option<String>,
    /// Whether instances on the bucket may have another window. For commands that only read the bucket.
    pub any_window: bool,
    /// The maximum number of lines in one write. The server is fastest with 5,000.
    pub batch_pairs: usize,
    /// How long a write waits for more lines to join it.
    pub linger: Duration,
    /// The maximum number of concurrent writes. On two cores, a third one gained nothing.
    pub writes_in_flight: usize,
    /// The maximum number of queued pairs. Beyond it, [`record`](domain::store::PairStore::record) returns `Busy`.
    pub queue_pairs: usize,
    /// The timeout of connecting to the server.
    pub connect_timeout: Duration,
    /// The initial timeout of one attempt of a write. A healthy server takes tens of milliseconds. It aborts a slow write
    /// itself after 10 s and reports that. After a timeout, the value grows to at most 30 s.
    pub write_timeout: Duration,
    /// How long a client waits for its pairs before they go to the spool. Retries of a body, and the search for lines that
    /// the server refuses, may use two thirds of this time.
    pub write_deadline: Duration,
    /// The maximum number of attempts of a write.
    pub write_attempts: u32,
    /// The timeout of a query, up to the last byte of its response.
    pub query_timeout: Duration,
    /// The maximum number of concurrent user lookups and erasures. Each one reads every pair of the bucket.
    pub lookups: usize,
    /// How long a lookup waits for a permit before it fails with `Busy`.
    pub lookup_wait: Duration,
    /// The time limit for deleting points during one erasure. Each point takes tens of milliseconds.
    pub delete_deadline: Duration,
    /// The file for lines that the server refuses. With `None`, refused lines are only counted.
    pub dead_letter: Option<PathBuf>,
    /// The maximum size of that file.
    pub dead_letter_max_bytes: u64,
    /// Headers of each request that continue the caller's trace.
    pub trace_headers: fn() -> HashMap<String, String>,
}

impl InfluxOptions {
    /// Options with defaults for everything else.
    pub fn new(url: &str, org: &str, bucket: &str, token: &str, frame: TimeFrame) -> Self {
        Self {
            url: url.to_owned(),
            org: org.to_owned(),
            bucket: bucket.to_owned(),
            trend_bucket: format!("{bucket}_trend"),
            token: token.to_owned(),
            frame,
            key: None,
            user_key: None,
            any_window: false,
            batch_pairs: 5_000,
            // Lines accumulate while other writes are in flight. A longer wait only adds latency (measured).
            linger: Duration::ZERO,
            writes_in_flight: 2,
            queue_pairs: 500_000,
            connect_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(11),
            write_deadline: Duration::from_secs(6),
            write_attempts: 4,
            query_timeout: Duration::from_secs(60),
            lookups: 2,
            lookup_wait: Duration::from_secs(10),
            delete_deadline: Duration::from_secs(10),
            dead_letter: None,
            dead_letter_max_bytes: 64 * 1024 * 1024,
            trace_headers: HashMap::new,
        }
    }
}

impl fmt::Debug for InfluxOptions {
    /// Omits the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InfluxOptions")
            .field("url", &self.url)
            .field("org", &self.org)
            .field("bucket", &self.bucket)
            .field("trend_bucket", &self.trend_bucket)
            .field("frame", &self.frame)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl InfluxOptions {
    /// Options for tests that send no request.
    pub(super) fn for_tests() -> Self {
        let frame = TimeFrame::new(
            Duration::from_hours(336),
            Duration::from_secs(60),
            Duration::from_secs(300),
        );
        Self::new("http://127.0.0.1:9", "o", "b", "secret", frame.unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_token() {
        assert!(!format!("{:?}", InfluxOptions::for_tests()).contains("secret"));
    }
}
