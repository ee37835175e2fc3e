//! What a replica knows besides the index: its position in the feed, erasures, and what it has read from the store.
//!
//! The embedded store follows no feed, so all of this stays empty there.

use std::collections::{HashMap, HashSet};

use domain::Segment;
use domain::feed::{Cursor, FeedId, Token};
use index::Fingerprint;

use super::Subject;
use super::record::{length, push_segment, segment};
use wal::Fields;

/// How long an erasure is remembered, in milliseconds: longer than any pair that was received before it can be on its way.
const KEEP_ERASURES: i64 = 48 * 3_600 * 1_000;
/// The number of erasures after which old ones are removed.
const MANY_ERASURES: u64 = 1_000;

/// A position in a feed, and the server that the entries before it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The position.
    pub at: Cursor,
    /// Identifies the process that served the feed; 0 if that is unknown.
    pub server: u64,
}

/// The state of following a feed.
#[derive(Debug, Default)]
pub struct Following {
    /// Every entry of the feed up to here is applied.
    pub position: Option<Reached>,
    /// Whether every segment was read from the store.
    pub is_complete: bool,
    /// The segments that were read from the store, until all of them were.
    pub covered: HashSet<Segment>,
    /// Segments whose users were removed, and which were not read from the store since.
    pub reset: HashSet<Segment>,
    /// How often a segment was reset since the start.
    pub resets: u64,
    users: HashMap<Fingerprint, Erased>,
    segments: HashMap<Segment, ErasedIn>,
    /// The number of erasures that were noted ever.
    noted: u64,
}

/// What was read from the store.
#[derive(Debug)]
pub(super) struct Covered {
    /// Whether that is every segment.
    pub(super) is_complete: bool,
    pub(super) segments: Vec<Segment>,
}

/// The last erasures in one segment.
#[derive(Debug, Default)]
struct ErasedIn {
    /// The erasure of the whole segment.
    all: Option<Erased>,
    users: HashMap<Fingerprint, Erased>,
}

/// The erasures that may concern the pairs of a segment.
pub(super) struct ErasuresIn<'a> {
    users: &'a HashMap<Fingerprint, Erased>,
    segment: Option<&'a ErasedIn>,
}

impl ErasuresIn<'_> {
    /// Whether `is_wanted` holds for one of the erasures that concern a pair.
    pub(super) fn any(&self, user: Fingerprint, is_wanted: impl Fn(&Erased) -> bool) -> bool {
        let segment = self.segment;
        let of_pair = segment.and_then(|erased| erased.users.get(&user));
        let of_segment = segment.and_then(|erased| erased.all.as_ref());
        let mut all = [self.users.get(&user), of_segment, of_pair]
            .into_iter()
            .flatten();
        all.any(is_wanted)
    }
}

/// The last erasure of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Erased {
    /// In unix milliseconds.
    pub(super) at: i64,
    /// The number of erasures that were noted until this one.
    pub(super) number: u64,
}

impl Following {
    /// Whether the segment was read from the store. A segment that is not in the store needs no reading, which is known once
    /// all of them are read.
    pub fn has_read(&self, segment: &Segment) -> bool {
        (self.is_complete || self.covered.contains(segment)) && !self.reset.contains(segment)
    }

    /// Whether every segment was read from the store.
    pub fn has_read_all(&self) -> bool {
        self.is_complete && self.reset.is_empty()
    }

    /// Notes what was read from the store.
    pub(super) fn cover(&mut self, read: Covered) {
        for segment in &read.segments {
            self.reset.remove(segment);
        }
        self.is_complete |= read.is_complete;
        match self.is_complete {
            true => self.covered = HashSet::new(),
            false => self.covered.extend(read.segments),
        }
    }

    /// Whether an erasure of the subject at `at` or later is known.
    pub fn knows_erasure(&self, subject: &Subject, at: i64) -> bool {
        let erased = match subject {
            Subject::User(user) => self.users.get(user),
            Subject::Segment(segment) => self
                .segments
                .get(segment)
                .and_then(|erased| erased.all.as_ref()),
            Subject::Pair(segment, user) => self
                .segments
                .get(segment)
                .and_then(|erased| erased.users.get(user)),
        };
        erased.is_some_and(|erased| erased.at >= at)
    }

    /// The number of erasures that were noted ever. The store erases a user first, so a read that begins now returns no pairs of
    /// these users that came before their erasures.
    pub fn noted_erasures(&self) -> u64 {
        self.noted
    }

    /// The erasures that may concern pairs of `segment`; `None` if there are none.
    pub(super) fn erasures_in(&self, segment: &Segment) -> Option<ErasuresIn<'_>> {
        let erasures = ErasuresIn {
            users: &self.users,
            segment: self.segments.get(segment),
        };
        (!self.users.is_empty() || erasures.segment.is_some()).then_some(erasures)
    }

    pub(super) fn note_erasure(&mut self, subject: Subject, at: i64) {
        // Replay repeats erasures.
        if self.knows_erasure(&subject, at) {
            return;
        }
        self.noted += 1;
        let number = self.noted;
        self.restore_erasure(subject, Erased { at, number });
        // Relative to erasures and not to a clock, so that replay leads to the same state.
        if number.is_multiple_of(MANY_ERASURES) {
            self.drop_old_erasures(at);
        }
    }

    fn drop_old_erasures(&mut self, at: i64) {
        let newest = self.users.values().map(|it| it.at).max().unwrap_or(at);
        let is_kept = |it: &Erased| newest.max(at).saturating_sub(it.at) <= KEEP_ERASURES;
        self.users.retain(|_, it| is_kept(it));
        self.segments.retain(|_, erased| {
            erased.all = erased.all.filter(is_kept);
            erased.users.retain(|_, it| is_kept(it));
            erased.all.is_some() || !erased.users.is_empty()
        });
    }

    /// The erasures of users, as they are written to a snapshot.
    pub(super) fn erasures(&self) -> Vec<(Fingerprint, Erased)> {
        let mut erasures: Vec<_> = self.users.iter().map(|(f, it)| (*f, *it)).collect();
        erasures.sort_unstable();
        erasures
    }

    /// The erasures in segments, as they are written to a snapshot: of a whole segment without a user.
    pub(super) fn erasures_in_segments(&self) -> Vec<(Segment, Option<Fingerprint>, Erased)> {
        let of_segment = |(segment, erased): (&Segment, &ErasedIn)| {
            let all = erased.all.map(|it| (segment.clone(), None, it));
            let users = erased.users.iter();
            let users = users.map(|(user, it)| (segment.clone(), Some(*user), *it));
            all.into_iter().chain(users).collect::<Vec<_>>()
        };
        let mut erasures: Vec<_> = self.segments.iter().flat_map(of_segment).collect();
        erasures.sort_unstable();
        erasures
    }

    /// Restores an erasure of a snapshot.
    pub(super) fn restore_erasure(&mut self, subject: Subject, erased: Erased) {
        match subject {
            Subject::User(user) => {
                self.users.insert(user, erased);
            }
            Subject::Segment(segment) => {
                self.segments.entry(segment).or_default().all = Some(erased);
            }
            Subject::Pair(segment, user) => {
                let of_segment = self.segments.entry(segment).or_default();
                of_segment.users.insert(user, erased);
            }
        }
    }

    /// Restores the number of erasures that were noted.
    pub(super) fn restore_noted(&mut self, noted: u64) {
        self.noted = noted;
    }
}

/// Encodes a position: `feed u64 | number u64 | token u64 | server u64`.
pub(super) fn push_position(out: &mut Vec<u8>, reached: &Reached) {
    let position = &reached.at;
    for number in [
        position.feed.number(),
        position.number,
        position.token.number(),
        reached.server,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Reads a position.
pub(super) fn position(fields: &mut Fields<'_>) -> Result<Reached, String> {
    let at = Cursor {
        feed: FeedId::from_number(fields.u64()?),
        number: fields.u64()?,
        token: Token::from_number(fields.u64()?),
    };
    let server = fields.u64()?;
    Ok(Reached { at, server })
}

/// Encodes what was read from the store: `complete u8 | segments u32 | segment*`.
pub(super) fn push_covered<'a>(
    out: &mut Vec<u8>,
    is_complete: bool,
    segments: impl ExactSizeIterator<Item = &'a Segment>,
) {
    out.push(u8::from(is_complete));
    out.extend_from_slice(&length(segments.len()));
    for segment in segments {
        push_segment(out, segment);
    }
}

/// Reads what was read from the store.
pub(super) fn covered(fields: &mut Fields<'_>) -> Result<Covered, String> {
    let is_complete = fields.u8()? != 0;
    let segments = (0..fields.u32()?).map(|_| segment(fields));
    Ok(Covered {
        is_complete,
        segments: segments.collect::<Result<_, _>>()?,
    })
}
