//! The cache's requests to Redis: each operation as the commands and scripts that it consists of.

use std::time::Duration;

use super::keys::Keys;
use super::options::RedisCacheOptions;
use super::scripts::Scripts;
use crate::redis::Request;
use domain::cache::{KEEP_NOTED, LockToken};
use domain::{Count, Segment, Timestamp, Window};

/// Members of the list of segments that one step of a scan visits.
const SCAN_STEP: usize = 1_000;
/// Members added to the list of segments by one command.
pub(super) const ADD_AT_ONCE: usize = 1_000;

#[derive(Debug)]
pub(super) struct Requests {
    keys: Keys,
    scripts: Scripts,
    /// The TTL of counts in milliseconds, as a string.
    keep_counts: String,
    keep_segments: Duration,
    max_ahead: Duration,
}

impl Requests {
    pub(super) fn new(options: &RedisCacheOptions) -> Self {
        Self {
            keys: Keys::new(&options.prefix),
            scripts: Scripts::new(),
            keep_counts: millis(options.keep_counts),
            keep_segments: options.keep_segments,
            max_ahead: options.max_ahead,
        }
    }

    /// Reads the count of each segment.
    pub(super) fn get(&self, segments: &[Segment], window: Window) -> Vec<Request<'static>> {
        let get = |segment| Request::command("HGET", (self.keys.counts(segment), window.seconds()));
        segments.iter().map(get).collect()
    }

    /// Notes these segments in the list, and removes segments that were not noted for `keep_segments`.
    pub(super) fn touch<'a>(
        &self,
        segments: impl Iterator<Item = &'a Segment>,
    ) -> Vec<Request<'static>> {
        let now = Timestamp::now().as_millisecond();
        let members: Vec<_> = segments.map(|segment| (now, segment.as_str())).collect();
        if members.is_empty() {
            return Vec::new();
        }
        let add = members
            .chunks(ADD_AT_ONCE)
            .map(|members| Request::command("ZADD", (&self.keys.segments, members)));
        let forgotten = format!("({}", self.oldest());
        let forget = Request::command("ZREMRANGEBYSCORE", (&self.keys.segments, "-inf", forgotten));
        add.chain([forget, self.keep_list()]).collect()
    }

    /// The score in the list below which a segment has expired.
    pub(super) fn oldest(&self) -> i64 {
        score_before(self.keep_segments)
    }

    /// The score in the list up to which a segment without users may be removed.
    pub(super) fn removable() -> i64 {
        score_before(KEEP_NOTED)
    }

    fn keep_list(&self) -> Request<'static> {
        Request::command("PEXPIRE", (&self.keys.segments, millis(self.keep_segments)))
    }

    pub(super) fn put(&self, segment: &Segment, window: Window, count: Count) -> Vec<Request<'_>> {
        let args = vec![
            window.seconds().to_string(),
            count.users.to_string(),
            count.as_of.as_microsecond().to_string(),
            self.keep_counts.clone(),
            self.max_ahead.as_micros().min(1 << 52).to_string(),
        ];
        let keys = vec![self.keys.counts(segment)];
        let mut requests = vec![Request::Run(&self.scripts.put, keys, args)];
        if count.users > 0 {
            requests.extend(self.touch(std::iter::once(segment)));
        }
        requests
    }

    /// Reads for how long the list of segments is still complete.
    pub(super) fn list_head(&self) -> Request<'_> {
        let keys = vec![self.keys.segments.clone()];
        Request::Run(&self.scripts.list_head, keys, Vec::new())
    }

    pub(super) fn list_step(&self, cursor: u64) -> Request<'static> {
        Request::command("ZSCAN", (&self.keys.segments, cursor, "COUNT", SCAN_STEP))
    }

    pub(super) fn list_complete(&self, ttl: Duration) -> [Request<'_>; 2] {
        let keys = vec![self.keys.segments.clone()];
        let note = Request::Run(&self.scripts.list_complete, keys, vec![millis(ttl)]);
        [note, self.keep_list()]
    }

    pub(super) fn list_score(&self, segment: &Segment) -> Request<'static> {
        Request::command("ZSCORE", (&self.keys.segments, segment.as_str()))
    }

    pub(super) fn forget_counts(&self, segment: &Segment) -> Request<'_> {
        let keys = vec![self.keys.counts(segment)];
        Request::Run(&self.scripts.forget_counts, keys, Vec::new())
    }

    /// Removes the segment from the list unless it was noted recently.
    pub(super) fn list_remove(&self, segment: &Segment) -> Request<'_> {
        let args = vec![segment.as_str().to_owned(), Self::removable().to_string()];
        let keys = vec![self.keys.segments.clone()];
        Request::Run(&self.scripts.list_remove, keys, args)
    }

    pub(super) fn lock(&self, token: &LockToken, ttl: Duration) -> Request<'_> {
        let args = vec![token.0.to_string(), millis(ttl)];
        Request::Run(&self.scripts.lock, vec![self.keys.lock.clone()], args)
    }

    /// Records a run as a key with the TTL `keep`.
    pub(super) fn note_run(&self, keep: Duration) -> Request<'_> {
        let keys = vec![self.keys.last_run.clone()];
        Request::Run(&self.scripts.note_run, keys, vec![millis(keep)])
    }

    pub(super) fn last_run(&self) -> Request<'static> {
        Request::command("PTTL", &self.keys.last_run)
    }

    pub(super) fn unlock(&self, token: &LockToken) -> Request<'_> {
        let args = vec![token.0.to_string()];
        Request::Run(
            &self.scripts.lock_release,
            vec![self.keys.lock.clone()],
            args,
        )
    }
}

/// The score of a segment that was last noted this long ago.
fn score_before(time: Duration) -> i64 {
    let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp::now().as_millisecond().saturating_sub(time)
}

/// A duration as Redis expects it: whole milliseconds, at least 1, and small enough that an expiry does not overflow.
fn millis(time: Duration) -> String {
    time.as_millis().clamp(1, 1 << 52).to_string()
}
