//! What an InfluxDB store needs to know.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::key::PointKey;
use domain::TimeFrame;

/// Where the server is, what to call things there, and how patient to be.
#[derive(Clone)]
pub struct InfluxOptions {
    /// The server's URL; a path in it is kept.
    pub url: String,
    /// The organisation's name.
    pub org: String,
    /// The bucket of the pairs.
    pub bucket: String,
    /// The bucket of the trend.
    pub trend_bucket: String,
    /// The token of every request.
    pub token: String,
    /// The window and the resolution.
    pub frame: TimeFrame,
    /// The installation's key. `None`: the one that is kept in the store, and made there if it is missing. With a key
    /// given, nothing of what instances must agree on is compared.
    pub key: Option<PointKey>,
    /// A digest of `user_key`, where there is one: instances with different ones refuse to share a bucket.
    pub user_key: Option<String>,
    /// Whether instances on the bucket may have another window: for commands that read it only.
    pub any_window: bool,
    /// The most lines in one write. 5,000 is where the server is fastest.
    pub batch_pairs: usize,
    /// How long a write waits for more lines to share it.
    pub linger: Duration,
    /// How many writes may be under way. A third gained nothing on two cores.
    pub writes_in_flight: usize,
    /// How many pairs may wait before [`record`](domain::store::PairStore::record) answers `Busy`.
    pub queue_pairs: usize,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one try of a write may take at first. A healthy server takes tens of milliseconds, and gives up a slow
    /// write itself after 10 s, which it says. After a time-out it grows, up to 30 s.
    pub write_timeout: Duration,
    /// How long a client waits for its pairs before they go to the spool. A body is repeated, and searched for lines
    /// that the server refuses, for two thirds of it.
    pub write_deadline: Duration,
    /// How often a write is tried.
    pub write_attempts: u32,
    /// How long a query may take, to the last byte.
    pub query_timeout: Duration,
    /// How many users may be looked up or erased at once: each look-up reads every pair of the bucket.
    pub lookups: usize,
    /// How long a look-up waits for its turn before it is `Busy`.
    pub lookup_wait: Duration,
    /// How long erasing one user may spend on deleting points, which takes tens of milliseconds each.
    pub delete_deadline: Duration,
    /// Where lines go that the server refuses. `None`: nowhere, they are only counted.
    pub dead_letter: Option<PathBuf>,
    /// How large that file may grow.
    pub dead_letter_max_bytes: u64,
}

impl InfluxOptions {
    /// Options with the defaults of everything that has one.
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
            // Lines gather by themselves while the writes under way are; waiting longer only delays (measured).
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
        }
    }
}

impl fmt::Debug for InfluxOptions {
    /// Everything but the token.
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
    /// Options whose server is never asked.
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
