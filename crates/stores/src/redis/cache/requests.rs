//! The cache's requests to Redis: each operation as the commands and scripts that it consists of.

use std::time::Duration;

use super::keys::Keys;
use super::options::RedisCacheOptions;
use super::scripts::Scripts;
use crate::redis::Request;
use domain::cache::{LockToken, PendingMark};
use domain::{Count, Segment, Timestamp, Window};

/// Segments read by one request to one server: a few hundred microseconds of its time.
pub(super) const GET_AT_ONCE: usize = 200;
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
    /// The TTL of pending counters in milliseconds, as a string.
    keep_pending: String,
    keep_segments: Duration,
    max_ahead: Duration,
    /// Segments that one script may touch: on a cluster, those of one hash slot.
    together: usize,
}

impl Requests {
    pub(super) fn new(options: &RedisCacheOptions) -> Self {
        Self {
            keys: Keys::new(&options.prefix),
            scripts: Scripts::new(),
            keep_counts: millis(options.keep_counts),
            keep_pending: millis(options.keep_counts.saturating_mul(2)),
            keep_segments: options.keep_segments,
            max_ahead: options.max_ahead,
            together: if options.server.is_cluster {
                1
            } else {
                GET_AT_ONCE
            },
        }
    }

    /// Reads the counts of at most [`GET_AT_ONCE`] segments. The responses, concatenated, have one entry a segment.
    pub(super) fn get(&self, segments: &[Segment], window: Window) -> Vec<Request<'_>> {
        let together = segments.chunks(self.together);
        let requests = together.map(|segments| {
            let keys = segments
                .iter()
                .flat_map(|segment| [self.keys.count(segment, window), self.keys.pending(segment)]);
            Request::Run(&self.scripts.get, keys.collect(), Vec::new())
        });
        requests.collect()
    }

    /// Adds to the noted pairs of each segment.
    ///
    /// On a cluster the counter of a segment and the list of segments live on different nodes, so either may be
    /// updated first. If a removal runs in between, the segment is missing from the list until its next pair, or until
    /// the store's segments are listed again.
    pub(super) fn note(&self, added: &[(Segment, u64)]) -> Vec<Request<'_>> {
        let mut requests = Vec::with_capacity(2 * added.len() + 2);
        for (segment, pairs) in added {
            let key = self.keys.pending(segment);
            let pairs = i64::try_from(*pairs).unwrap_or(i64::MAX);
            requests.push(Request::command("HINCRBY", (&key, "noted", pairs)));
            requests.push(Request::command("PEXPIRE", (&key, &self.keep_pending)));
        }
        requests.extend(self.touch(added.iter().map(|(segment, _)| segment)));
        requests
    }

    /// Ends the epoch of each segment's counters, which invalidates all earlier marks. It deletes instead of writing,
    /// because a Redis at its memory limit still accepts deletes.
    pub(super) fn end_epoch(&self, segments: &[Segment]) -> Vec<Request<'_>> {
        let end = |segment| Request::command("HDEL", (self.keys.pending(segment), "epoch"));
        segments
            .iter()
            .map(end)
            .chain(self.touch(segments.iter()))
            .collect()
    }

    /// Renews these segments in the list, and removes segments that were not renewed for `keep_segments`.
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
        let keep = i64::try_from(self.keep_segments.as_millis()).unwrap_or(i64::MAX);
        Timestamp::now().as_millisecond().saturating_sub(keep)
    }

    fn keep_list(&self) -> Request<'static> {
        Request::command("PEXPIRE", (&self.keys.segments, millis(self.keep_segments)))
    }

    pub(super) fn mark(&self, segment: &Segment) -> Request<'_> {
        let fresh_epoch = fastrand::u64(..).to_string();
        let args = vec![fresh_epoch, self.keep_pending.clone()];
        Request::Run(&self.scripts.mark, vec![self.keys.pending(segment)], args)
    }

    pub(super) fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
        mark: PendingMark,
    ) -> Vec<Request<'_>> {
        let keys = vec![self.keys.count(segment, window), self.keys.pending(segment)];
        let args = vec![
            count.users.to_string(),
            count.as_of.as_microsecond().to_string(),
            mark.noted.to_string(),
            mark.epoch.to_string(),
            window.seconds().to_string(),
            self.keep_counts.clone(),
            self.keep_pending.clone(),
            self.max_ahead.as_micros().min(1 << 52).to_string(),
        ];
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
        let keys = vec![self.keys.pending(segment)];
        Request::Run(&self.scripts.forget_counts, keys, Vec::new())
    }

    /// Removes the counts over these windows, and removes the segment from the list if its score is still `score`.
    pub(super) fn remove(
        &self,
        segment: &Segment,
        windows: Vec<u64>,
        score: Option<String>,
    ) -> Vec<Request<'_>> {
        let counts = windows
            .into_iter()
            .map(|window| Request::command("UNLINK", self.keys.count_over(segment, window)));
        let listed = score.map(|score| {
            let args = vec![segment.as_str().to_owned(), score];
            Request::Run(
                &self.scripts.list_remove,
                vec![self.keys.segments.clone()],
                args,
            )
        });
        counts.chain(listed).collect()
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

/// A duration as Redis expects it: whole milliseconds, at least 1, and small enough that an expiry does not overflow.
fn millis(time: Duration) -> String {
    time.as_millis().clamp(1, 1 << 52).to_string()
}
