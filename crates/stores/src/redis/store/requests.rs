//! The store's requests to Redis: each operation as the commands and scripts that it consists of.

use std::ops::RangeInclusive;

use super::keys::Keys;
use super::scripts::Scripts;
use super::trend::Buckets;
use crate::redis::{Prefix, Request};
use domain::{
    Batch, Erasure, FingerprintKey, Membership, Segment, Slot, Timestamp, TrendPoint, UserId,
    Window,
};

/// Members of one `ZADD`. More gain nothing and delay other clients longer: a member costs the server about a
/// microsecond.
pub(super) const ADD_AT_ONCE: usize = 250;
/// Members of the list of segments that one command writes or visits.
const LIST_AT_ONCE: usize = 1_000;
/// Members that one step of archiving removes at most: about a millisecond of the server's time.
pub(super) const REMOVE_AT_ONCE: u64 = 1_000;
/// Pairs in one page of an export.
pub(super) const PAGE_PAIRS: usize = 5_000;
/// The format version of the keys. A program must not read or write keys of another version.
pub(super) const FORMAT: &str = "1";
/// The field of the meta that holds the installation's key, as hexadecimal digits.
const KEY_FIELD: &str = "fingerprint_key";

#[derive(Debug)]
pub(super) struct Requests {
    pub(super) keys: Keys,
    scripts: Scripts,
}

impl Requests {
    pub(super) fn new(prefix: &Prefix) -> Self {
        Self {
            keys: Keys::new(prefix),
            scripts: Scripts::new(),
        }
    }

    pub(super) fn meta(&self, resolution: u32, user_key: &str) -> Request<'_> {
        let args = vec![
            FORMAT.to_owned(),
            resolution.to_string(),
            user_key.to_owned(),
        ];
        Request::Run(&self.scripts.meta, vec![self.keys.meta.clone()], args)
    }

    pub(super) fn key(&self) -> Request<'static> {
        Request::command("HGET", (&self.keys.meta, KEY_FIELD))
    }

    /// Stores the installation's key, unless there is one.
    pub(super) fn offer_key(&self, key: FingerprintKey) -> Request<'static> {
        Request::command("HSETNX", (&self.keys.meta, KEY_FIELD, key.to_hex()))
    }

    pub(super) fn properties(&self) -> Request<'static> {
        Request::command("HGETALL", &self.keys.properties)
    }

    /// Sets a property, or removes it.
    pub(super) fn set_property(&self, name: &str, value: Option<&str>) -> Request<'static> {
        match value {
            Some(value) => Request::command("HSET", (&self.keys.properties, name, value)),
            None => Request::command("HDEL", (&self.keys.properties, name)),
        }
    }

    /// Adds segments to the list, or renews the time at which they were last in use.
    pub(super) fn announce(&self, segments: &[Segment]) -> Vec<Request<'static>> {
        let now = Timestamp::now().as_millisecond();
        let add = |segments: &[Segment]| {
            let members: Vec<_> = segments.iter().map(|it| (now, it.as_str())).collect();
            Request::command("ZADD", (&self.keys.segments, "GT", members))
        };
        segments.chunks(LIST_AT_ONCE).map(add).collect()
    }

    /// Adds pairs. A later slot replaces an earlier one and never the other way round, so any part may be retried.
    pub(super) fn add(&self, batch: &Batch) -> Vec<Request<'static>> {
        let begin = |segment: &Segment| {
            let mut add = redis::cmd("ZADD");
            add.arg(self.keys.pairs(segment)).arg("GT");
            (add, 0_usize)
        };
        let mut begun: Vec<_> = batch.segments().iter().map(begin).collect();
        let mut requests = Vec::with_capacity(begun.len() + batch.len() / ADD_AT_ONCE);
        for (index, user, slot) in batch.indexed() {
            let (add, members) = &mut begun[index];
            add.arg(slot.number()).arg(user.as_str());
            *members += 1;
            if *members == ADD_AT_ONCE {
                let fresh = begin(&batch.segments()[index]);
                let (full, _) = std::mem::replace(&mut begun[index], fresh);
                requests.push(Request::Command(full));
            }
        }
        let rest = begun.into_iter().filter(|(_, members)| *members > 0);
        requests.extend(rest.map(|(add, _)| Request::Command(add)));
        requests
    }

    pub(super) fn count(
        &self,
        segment: &Segment,
        slots: &RangeInclusive<Slot>,
    ) -> Request<'static> {
        let (first, last) = (slots.start().number(), slots.end().number());
        Request::command("ZCOUNT", (self.keys.pairs(segment), first, last))
    }

    pub(super) fn list_step(&self, cursor: u64) -> Request<'static> {
        Request::command(
            "ZSCAN",
            (&self.keys.segments, cursor, "COUNT", LIST_AT_ONCE),
        )
    }

    pub(super) fn slot_of(&self, segment: &Segment, user: &UserId<'_>) -> Request<'static> {
        Request::command("ZSCORE", (self.keys.pairs(segment), user.as_str()))
    }

    pub(super) fn forget(&self, segment: &Segment, user: &UserId<'_>) -> Request<'_> {
        let args = vec![user.as_str().to_owned()];
        Request::Run(&self.scripts.forget, vec![self.keys.pairs(segment)], args)
    }

    pub(super) fn forget_seen(&self, seen: &Membership, user: &UserId<'_>) -> Request<'_> {
        let args = vec![
            user.as_str().to_owned(),
            seen.last_seen.number().to_string(),
        ];
        let keys = vec![self.keys.pairs(&seen.segment)];
        Request::Run(&self.scripts.forget_seen, keys, args)
    }

    /// Removes all pairs of a segment. The segment stays in the list until it is archived: a writer may have announced it.
    pub(super) fn drop_pairs(
        &self,
        segment: &Segment,
        slots: &RangeInclusive<Slot>,
    ) -> Request<'_> {
        let args = [slots.start(), slots.end()].map(|slot| slot.number().to_string());
        Request::Run(
            &self.scripts.drop_pairs,
            vec![self.keys.pairs(segment)],
            args.to_vec(),
        )
    }

    /// Removes the trend of a segment over a window, whose newest point is at `newest`.
    pub(super) fn drop_trend(
        &self,
        segment: &Segment,
        window: Window,
        newest: u64,
    ) -> Request<'static> {
        let keys = Buckets::of(self.keys.trend(segment, window)).keys(newest);
        Request::command("UNLINK", keys)
    }

    /// Records an erasure, and removes erasures before `reached`, which no window reaches any more.
    pub(super) fn note_erasure(
        &self,
        erasure: &Erasure,
        reached: Timestamp,
    ) -> [Request<'static>; 2] {
        let (at, mark) = (erasure.at().as_microsecond(), erasure.mark());
        let before = format!("({}", reached.as_microsecond());
        [
            Request::command("ZADD", (&self.keys.erased, at, mark)),
            Request::command("ZREMRANGEBYSCORE", (&self.keys.erased, "-inf", before)),
        ]
    }

    pub(super) fn erasures(&self, since: Timestamp) -> Request<'static> {
        let from = since.as_microsecond();
        Request::command(
            "ZRANGEBYSCORE",
            (&self.keys.erased, from, "+inf", "WITHSCORES"),
        )
    }

    /// Counts the pairs of a segment before `first`, and all of its pairs.
    pub(super) fn count_before(&self, segment: &Segment, first: Slot) -> [Request<'static>; 2] {
        let key = self.keys.pairs(segment);
        let before = format!("({}", first.number());
        [
            Request::command("ZCOUNT", (&key, "-inf", before)),
            Request::command("ZCARD", &key),
        ]
    }

    pub(super) fn archive(&self, segment: &Segment, first: Slot, limit: u64) -> Request<'_> {
        let args = vec![first.number().to_string(), limit.to_string()];
        Request::Run(&self.scripts.archive, vec![self.keys.pairs(segment)], args)
    }

    pub(super) fn drop_empty(&self, segment: &Segment, score: &str) -> Request<'_> {
        let args = vec![segment.as_str().to_owned(), score.to_owned()];
        Request::Run(
            &self.scripts.drop_empty,
            vec![self.keys.segments.clone()],
            args,
        )
    }

    /// Reads the page after `read`, or the first page from slot `first` on.
    pub(super) fn page(
        &self,
        segment: &Segment,
        first: Slot,
        read: &[(String, u64)],
    ) -> Request<'_> {
        /// How many of the last pairs may move to later slots before the page resumes at the beginning of a slot.
        const REMEMBERED: usize = 32;
        let mut args = vec![PAGE_PAIRS.to_string(), first.number().to_string()];
        for (user, slot) in read.iter().rev().take(REMEMBERED) {
            args.extend([user.clone(), slot.to_string()]);
        }
        Request::Run(&self.scripts.page, vec![self.keys.pairs(segment)], args)
    }

    pub(super) fn add_point(&self, point: &TrendPoint) -> Request<'_> {
        let base = self.keys.trend(&point.segment, point.window);
        let (keys, args) = Buckets::of(base).write(point.count);
        Request::Run(&self.scripts.trend, keys, args)
    }

    pub(super) fn newest_point(&self, segment: &Segment, window: Window) -> Request<'static> {
        Request::command("GET", self.keys.trend(segment, window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::BatchBuilder;

    #[test]
    fn pairs_are_grouped_by_segment_in_bounded_commands() {
        let mut builder = BatchBuilder::default();
        for n in 0..2 * ADD_AT_ONCE + 1 {
            let user = UserId::new(format!("u{n}")).unwrap();
            builder.push_pair(&user, "a", Slot::new(7)).unwrap();
            if n < ADD_AT_ONCE {
                builder.push_pair(&user, "b", Slot::new(8)).unwrap();
            }
        }
        builder.admit(Segment::new("empty").unwrap());
        let requests = Requests::new(&Prefix::new("hc").unwrap());
        let mut seen: Vec<(String, usize)> = Vec::new();
        for request in requests.add(&builder.finish()) {
            let command = request.short();
            let key = match command.args_iter().nth(1) {
                Some(redis::Arg::Simple(key)) => String::from_utf8(key.to_vec()).unwrap(),
                _ => panic!("no key"),
            };
            seen.push((key, (command.args_iter().count() - 3) / 2));
        }
        seen.sort();
        let (a, b) = ("hc:{a}:pairs".to_owned(), "hc:{b}:pairs".to_owned());
        assert_eq!(
            seen,
            [
                (a.clone(), 1),
                (a.clone(), ADD_AT_ONCE),
                (a, ADD_AT_ONCE),
                (b, ADD_AT_ONCE)
            ]
        );
    }
}
