//! What a replica knows besides the index: its position in the feed, erasures, and what it has read from the store.
//!
//! The embedded store follows no feed, so all of this stays empty there.

use std::collections::{HashMap, HashSet};

use domain::Segment;
use domain::feed::{Cursor, FeedId, Token};
use index::Fingerprint;

use super::record::{length, push_segment, segment};
use wal::Fields;

/// How long an erasure is remembered, in milliseconds: longer than any pair that was received before it can be on its way.
const KEEP_ERASURES: i64 = 48 * 3_600 * 1_000;
/// Erasures from which the old ones are looked for.
const MANY_ERASURES: usize = 1_000;

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
    erasures: HashMap<Fingerprint, Erased>,
    /// The number of erasures that were noted ever.
    noted: u64,
}

/// The last erasure of a user.
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

    /// Whether an erasure of the user at `at` or later is known.
    pub fn knows_erasure(&self, fingerprint: Fingerprint, at: i64) -> bool {
        self.erasures
            .get(&fingerprint)
            .is_some_and(|erased| erased.at >= at)
    }

    /// The number of erasures that were noted ever. The store erases a user first, so a read that begins now returns no pairs of
    /// these users that came before their erasures.
    pub fn noted_erasures(&self) -> u64 {
        self.noted
    }

    /// Whether the user was erased after `number` erasures had been noted.
    pub(super) fn is_erased_since(&self, fingerprint: Fingerprint, number: u64) -> bool {
        self.erasures
            .get(&fingerprint)
            .is_some_and(|erased| erased.number > number)
    }

    pub(super) fn has_erasures(&self) -> bool {
        !self.erasures.is_empty()
    }

    pub(super) fn note_erasure(&mut self, fingerprint: Fingerprint, at: i64) {
        // Replay repeats erasures.
        if self.knows_erasure(fingerprint, at) {
            return;
        }
        self.noted += 1;
        let number = self.noted;
        self.erasures.insert(fingerprint, Erased { at, number });
        // Relative to erasures and not to a clock, so that replay leads to the same state.
        if self.erasures.len().is_multiple_of(MANY_ERASURES) {
            let newest = self.erasures.values().map(|it| it.at).max().unwrap_or(at);
            self.erasures
                .retain(|_, it| newest.saturating_sub(it.at) <= KEEP_ERASURES);
        }
    }

    /// The erasures, as they are written to a snapshot.
    pub(super) fn erasures(&self) -> Vec<(Fingerprint, Erased)> {
        let mut erasures: Vec<_> = self.erasures.iter().map(|(f, it)| (*f, *it)).collect();
        erasures.sort_unstable();
        erasures
    }

    /// Restores an erasure of a snapshot.
    pub(super) fn restore_erasure(&mut self, fingerprint: Fingerprint, erased: Erased) {
        self.erasures.insert(fingerprint, erased);
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

/// Reads what was read from the store into `following`.
pub(super) fn covered(fields: &mut Fields<'_>, following: &mut Following) -> Result<(), String> {
    let is_complete = fields.u8()? != 0;
    for _ in 0..fields.u32()? {
        let segment = segment(fields)?;
        following.reset.remove(&segment);
        following.covered.insert(segment);
    }
    following.is_complete |= is_complete;
    if following.is_complete {
        following.covered = HashSet::new();
    }
    Ok(())
}
