//! The state that results from the records of the log: the index and the trends.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Subject;
use super::flows::FlowState;
use super::following::{self, Erased, Following};
use super::record::{
    self, BATCH, COUNTING, COVERED, DROP, FORGET, FORGET_IN, FORGET_SEEN, HEAD, MARK, PAIRS,
    POSITION, PROPERTY, RECEIVED, RESET, STORED, TREND,
};
use super::trends::{Point, Trends};
use domain::{Segment, Slot, TimeFrame};
use index::{Entry, Fingerprint, Index};
use wal::{Fields, Position};

/// Results of erasures that wait for their callers. More than can be in flight: the callers of the rest have gone.
const MAX_RESULTS: usize = 1 << 14;

/// The in-memory state of the store; a snapshot saves the index and the trends.
#[derive(Debug)]
pub struct State {
    /// The users of every segment.
    pub index: Index,
    /// The past counts.
    pub trends: Mutex<Trends>,
    /// The properties of the installation.
    pub properties: Mutex<BTreeMap<String, String>>,
    /// What a replica knows of the feed that it follows.
    pub following: Mutex<Following>,
    pub(super) flows: Mutex<FlowState>,
    /// The newest slot of all pairs. The head of the index may be later, because counts advance it.
    newest: AtomicU64,
    /// What the record at a position erased: the segments of a user, or the users of a segment.
    erased: Mutex<HashMap<Position, u64>>,
    /// Erasures in the log that no snapshot covers yet.
    uncovered: Mutex<Option<Uncovered>>,
}

/// Erasures of users whose fingerprints are still in the log or the snapshot.
#[derive(Debug, Clone, Copy)]
struct Uncovered {
    /// The time of the first one; `None` if it happened in a former process.
    since: Option<Instant>,
    /// The log file with the last one.
    last_file: u64,
}

impl State {
    /// An empty state.
    pub fn new(frame: TimeFrame) -> Self {
        Self {
            index: Index::new(frame.full_window().slots()).with_flow_steps(flow_step(frame)),
            trends: Mutex::default(),
            properties: Mutex::default(),
            following: Mutex::default(),
            flows: Mutex::default(),
            newest: AtomicU64::new(0),
            erased: Mutex::default(),
            uncovered: Mutex::default(),
        }
    }

    /// The newest slot of all pairs, or 0.
    pub fn newest(&self) -> Slot {
        Slot::new(self.newest.load(Ordering::Acquire))
    }

    pub(super) fn note_newest(&self, slot: Slot) {
        self.newest.fetch_max(slot.number(), Ordering::AcqRel);
    }

    /// Takes the number of segments from which the record at `at` erased its user, or that of the users of its segment.
    pub fn take_erased(&self, at: Position) -> u64 {
        self.erased.lock().remove(&at).unwrap_or(0)
    }

    /// Drops the results of replayed erasures, which have no caller. From now on records are applied for the first time.
    pub(super) fn end_replay(&self) {
        self.flows.lock().end_replay(self.newest(), &self.index);
        self.index.begin_totals();
        *self.erased.lock() = HashMap::new();
        if let Some(uncovered) = &mut *self.uncovered.lock() {
            uncovered.since = None;
        }
    }

    /// Whether an erasure has waited for a snapshot for this long, or since a former process.
    pub fn has_uncovered_erasure(&self, for_at_least: Duration) -> bool {
        self.uncovered.lock().is_some_and(|uncovered| {
            uncovered
                .since
                .is_none_or(|since| since.elapsed() >= for_at_least)
        })
    }

    /// Records that a snapshot covers the log files before `next`, and that they were removed.
    pub(super) fn covered(&self, next: u64) {
        let mut uncovered = self.uncovered.lock();
        *uncovered = uncovered
            .filter(|uncovered| uncovered.last_file >= next)
            .map(|uncovered| Uncovered {
                since: Some(Instant::now()),
                ..uncovered
            });
    }

    /// Applies one record, live or during replay; it is idempotent. `scratch` saves an allocation per record.
    pub fn apply(
        &self,
        at: Position,
        record: &[u8],
        scratch: &mut Vec<Entry>,
    ) -> Result<(), String> {
        let mut fields = Fields::of(record);
        match fields.u8()? {
            PAIRS => self.apply_pairs(&mut fields, scratch, |_| false)?,
            RECEIVED => {
                let at = fields.i64()?;
                self.apply_pairs(&mut fields, scratch, |erased| erased.at >= at)?;
            }
            STORED => {
                let number = fields.u64()?;
                self.apply_pairs(&mut fields, scratch, |erased| erased.number > number)?;
            }
            FORGET => {
                let fingerprint = Fingerprint::from_number(fields.u64()?);
                self.forget(at, &Subject::User(fingerprint));
            }
            TREND => self.apply_trend(&mut fields)?,
            FORGET_IN => {
                let fingerprint = Fingerprint::from_number(fields.u64()?);
                let segment = record::segment(&mut fields)?;
                self.forget(at, &Subject::Pair(segment, fingerprint));
            }
            FORGET_SEEN => {
                let fingerprint = Fingerprint::from_number(fields.u64()?);
                let mut seen = Vec::new();
                for _ in 0..fields.u32()? {
                    seen.push((record::segment(&mut fields)?, Slot::new(fields.u64()?)));
                }
                self.forget_seen(at, fingerprint, &seen);
            }
            DROP => {
                let segment = record::segment(&mut fields)?;
                self.trends.lock().remove(&segment);
                self.forget(at, &Subject::Segment(segment));
            }
            POSITION => {
                let position = following::position(&mut fields)?;
                self.following.lock().position = Some(position);
            }
            COVERED => self.apply_covered(&mut fields)?,
            HEAD => self.index.advance(Slot::new(fields.u64()?)),
            COUNTING => {
                let (since, window) = (Slot::new(fields.u64()?), fields.u32()?);
                let mut flows = self.flows.lock();
                flows.note_counting(since, window, &self.index);
            }
            MARK => self.flows.lock().mark(at, &self.index),
            RESET => {
                let segment = record::segment(&mut fields)?;
                {
                    let mut following = self.following.lock();
                    following.reset.insert(segment.clone());
                    following.resets += 1;
                }
                self.index.reset(segment.as_str());
            }
            PROPERTY => {
                let (name, value) = record::property_of(&mut fields)?;
                self.set_property(name, value);
            }
            BATCH => return self.apply_batch(at, fields.rest(), scratch),
            other => {
                let subject = record::subject(other, &mut fields)?;
                let subject = subject.ok_or_else(|| format!("unknown record kind {other}"))?;
                // Noted before the pairs are removed, so that a read of the store that begins now takes it into account.
                let noted = subject.clone();
                self.following.lock().note_erasure(noted, fields.i64()?);
                self.forget(at, &subject);
            }
        }
        fields.end()
    }

    pub(super) fn set_property(&self, name: String, value: Option<String>) {
        let mut properties = self.properties.lock();
        match value {
            Some(value) => drop(properties.insert(name, value)),
            None => drop(properties.remove(&name)),
        }
    }

    fn apply_batch(
        &self,
        at: Position,
        joined: &[u8],
        scratch: &mut Vec<Entry>,
    ) -> Result<(), String> {
        record::split(joined, |record| {
            // A batch within a batch would allow any depth of recursion.
            if record.first() == Some(&BATCH) {
                return Err("a batch contains a batch".to_owned());
            }
            self.apply(at, record, scratch)
        })
    }

    /// Applies pairs, without those that were erased.
    fn apply_pairs(
        &self,
        fields: &mut Fields<'_>,
        scratch: &mut Vec<Entry>,
        is_erased: impl Fn(&Erased) -> bool,
    ) -> Result<(), String> {
        let base = Slot::new(fields.u64()?);
        for _ in 0..fields.u32()? {
            let segment = record::segment(fields)?;
            record::entries(fields, scratch)?;
            {
                let following = self.following.lock();
                if let Some(erasures) = following.erasures_in(&segment) {
                    scratch.retain(|entry| !erasures.any(entry.fingerprint(), &is_erased));
                }
            }
            self.index.upsert(&segment, scratch, base);
        }
        self.note_newest(base);
        Ok(())
    }

    /// Entries and departures of a segment are counted only after its earlier users were read from the store.
    fn apply_covered(&self, fields: &mut Fields<'_>) -> Result<(), String> {
        let covered = following::covered(fields)?;
        let mut following = self.following.lock();
        let completes = covered.is_complete && !following.is_complete;
        let mut read = covered.segments.clone();
        if completes {
            read.extend(self.index.segment_names());
        }
        read.retain(|segment| !following.has_read(segment));
        following.cover(covered);
        let since = Slot::new(self.index.head().number() + 1);
        if completes {
            self.index.begin_flows(since);
        }
        for segment in read.iter().filter(|segment| following.has_read(segment)) {
            self.index.restart_flow(segment.as_str(), since);
        }
        Ok(())
    }

    fn forget(&self, at: Position, subject: &Subject) {
        let first = Slot::new(0);
        let erased = match subject {
            Subject::User(user) => self.index.erase(*user, first),
            Subject::Segment(segment) => self.index.reset(segment.as_str()),
            Subject::Pair(segment, user) => {
                u64::from(self.index.erase_in(segment.as_str(), *user, first))
            }
        };
        let mut uncovered = self.uncovered.lock();
        let since = uncovered.map_or_else(|| Some(Instant::now()), |uncovered| uncovered.since);
        *uncovered = Some(Uncovered {
            since,
            last_file: at.file,
        });
        drop(uncovered);
        self.note_erased(at, erased);
    }

    /// Records are applied one after another, so the user can't be seen again in between.
    fn forget_seen(&self, at: Position, user: Fingerprint, seen: &[(Segment, Slot)]) {
        let first = Slot::new(0);
        let held = self.index.memberships(user, first);
        let latest = |segment: &Segment| {
            let found = held.binary_search_by(|(held, _)| held.cmp(segment));
            found.ok().map(|found| held[found].1)
        };
        let gone = seen.iter().filter(|(segment, slot)| {
            latest(segment).is_some_and(|latest| latest <= *slot)
                && self.index.erase_in(segment.as_str(), user, first)
        });
        let gone = gone.count() as u64;
        self.note_erased(at, gone);
    }

    fn note_erased(&self, at: Position, erased: u64) {
        let mut results = self.erased.lock();
        if results.len() >= MAX_RESULTS {
            results.clear();
        }
        results.insert(at, erased);
    }

    fn apply_trend(&self, fields: &mut Fields<'_>) -> Result<(), String> {
        let mut trends = self.trends.lock();
        for _ in 0..fields.u32()? {
            let segment = record::segment(fields)?;
            let window = fields.u64()?;
            let point = Point::new(fields.i64()?, fields.u64()?);
            trends.add(&segment, window, point);
        }
        Ok(())
    }
}

/// Seconds of a step, the longest first. Steps longer than an hour would not end with the hours of a day.
const STEPS: [u64; 14] = [
    3_600, 1_800, 1_200, 900, 600, 300, 120, 60, 30, 20, 15, 10, 5, 2,
];
/// The least number of steps in the window. Two weeks have 336 hours.
const MIN_STEPS: u64 = 300;

/// The length of the steps in which users who entered and left are counted, in slots.
fn flow_step(frame: TimeFrame) -> u32 {
    let (window, slot) = (frame.full_window(), u64::from(frame.resolution().seconds()));
    let is_wanted =
        |step: &&u64| step.is_multiple_of(slot) && window.seconds() / **step >= MIN_STEPS;
    let slots = match STEPS.iter().find(is_wanted) {
        Some(step) => step / slot,
        // A resolution of an odd number of seconds, or a short window.
        None => u64::from(window.slots()).div_ceil(MIN_STEPS),
    };
    u32::try_from(slots).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_hours_where_that_is_fine_enough() {
        let step = |window: u64, slot: u64| {
            let seconds = Duration::from_secs;
            let frame = TimeFrame::new(seconds(window), seconds(slot), seconds(300)).unwrap();
            u64::from(flow_step(frame)) * slot
        };
        const DAY: u64 = 86_400;
        for (window, slot, expected) in [
            (14 * DAY, 60, 3_600),
            (30 * DAY, 120, 3_600),
            (7 * DAY, 60, 1_800),
            (DAY, 60, 120),
            (9 * 3_600, 1, 60),
            (14 * DAY, 3_600, 3_600),
            (70 * 400, 70, 140),
            (60, 1, 1),
        ] {
            assert_eq!(step(window, slot), expected, "{window} s of {slot} s");
        }
    }
}
