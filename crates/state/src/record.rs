//! The format of the log's records. [`encode`](super::encode) writes those of pairs.
//!
//! All little endian. A segment is `length u8, name`.
//! - pairs: `1 u8 | base slot u64 | groups u32 | (segment, entries u32, entry u64 *)*`
//! - forget: `2 u8 | fingerprint u64`
//! - trend: `3 u8 | points u32 | (segment, window seconds u64, at unix seconds i64, users u64)*`
//! - batch: `8 u8 | (length u32, record)*`, records of the other kinds
//! - head: `13 u8 | slot u64`, the head of the index when the next record was appended
//! - counting: `14 u8 | since slot u64 | window slots u32`, users who enter and leave are counted since that slot
//! - mark: `15 u8`, the position to which the counters of a snapshot belong
//! - drop: `16 u8 | segment`, removes the users and the trends of a segment
//! - forget in: `17 u8 | fingerprint u64 | segment`
//! - forget seen: `20 u8 | fingerprint u64 | segments u32 | (segment, slot u64)*`, removes the user from each segment in which the
//!   latest slot is not later
//! - property: `12 u8 | name length u16, name | is set u8 | value length u32, value`
//!
//! Those of a replica:
//! - received: `4 u8 | received at unix milliseconds i64`, then as pairs from the base on; pairs of users who were erased since are
//!   not applied
//! - stored: `10 u8 | erasures u64`, then as pairs from the base on: pairs from the store, read when this number of erasures was
//!   known; pairs of users with a later one are not applied
//! - erased: `5 u8 | fingerprint u64 | at unix milliseconds i64`; of a segment, `18 u8 | segment | at i64`; of a user in a segment,
//!   `19 u8 | segment | fingerprint u64 | at i64`
//! - position: `6 u8 | feed u64 | number u64 | token u64 | server u64`
//! - covered: `7 u8 | complete u8 | segments u32 | segment*`, segments that were read from the store
//! - reset: `9 u8 | segment`, removes the users of a segment, which is then read from the store again
//!
//! In a feed only:
//! - differing: `11 u8 | segment`, a replica found that the segment differs from the store

use super::Subject;
use super::following::{self, Reached};
use domain::{Membership, Segment, Slot, Timestamp, TrendPoint};
use index::{Entry, Fingerprint};
use wal::Fields;

pub(super) const PAIRS: u8 = 1;
pub(super) const FORGET: u8 = 2;
pub(super) const TREND: u8 = 3;
pub(super) const RECEIVED: u8 = 4;
pub(super) const ERASED: u8 = 5;
pub(super) const POSITION: u8 = 6;
pub(super) const COVERED: u8 = 7;
pub(super) const BATCH: u8 = 8;
pub(super) const RESET: u8 = 9;
pub(super) const STORED: u8 = 10;
const DIFFERING: u8 = 11;
pub(super) const PROPERTY: u8 = 12;
pub(super) const HEAD: u8 = 13;
pub(super) const COUNTING: u8 = 14;
pub(super) const MARK: u8 = 15;
pub(super) const DROP: u8 = 16;
pub(super) const FORGET_IN: u8 = 17;
pub(super) const DROPPED: u8 = 18;
pub(super) const ERASED_IN: u8 = 19;
pub(super) const FORGET_SEEN: u8 = 20;

/// The record that erases a user.
pub fn forget(fingerprint: Fingerprint) -> Vec<u8> {
    let mut out = vec![FORGET];
    out.extend_from_slice(&fingerprint.number().to_le_bytes());
    out
}

/// The record of trend points.
pub fn trend(points: &[TrendPoint]) -> Vec<u8> {
    let mut out = vec![TREND];
    out.extend_from_slice(&length(points.len()));
    for point in points {
        push_segment(&mut out, &point.segment);
        out.extend_from_slice(&point.window.seconds().to_le_bytes());
        out.extend_from_slice(&point.count.as_of.as_second().to_le_bytes());
        out.extend_from_slice(&point.count.users.to_le_bytes());
    }
    out
}

/// The record that sets a property of the installation, or removes it.
pub fn property(name: &str, value: Option<&str>) -> Vec<u8> {
    let mut out = vec![PROPERTY];
    push_property(&mut out, name, value);
    out
}

pub(super) fn push_property(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    // A name has at most 256 bytes.
    let bytes = u16::try_from(name.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.push(u8::from(value.is_some()));
    let value = value.unwrap_or_default();
    out.extend_from_slice(&length(value.len()));
    out.extend_from_slice(value.as_bytes());
}

/// Reads the name and the value of a property; `None` for one that is removed.
pub(super) fn property_of(fields: &mut Fields<'_>) -> Result<(String, Option<String>), String> {
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| "a property is not UTF-8".to_owned())
    };
    let bytes = usize::from(fields.u16()?);
    let name = text(fields.bytes(bytes)?)?;
    let is_set = fields.u8()? != 0;
    let bytes = fields.u32()? as usize;
    let value = text(fields.bytes(bytes)?)?;
    Ok((name, is_set.then_some(value)))
}

/// The record that erases a user from one segment.
pub fn forget_in(segment: &Segment, fingerprint: Fingerprint) -> Vec<u8> {
    let mut out = vec![FORGET_IN];
    out.extend_from_slice(&fingerprint.number().to_le_bytes());
    push_segment(&mut out, segment);
    out
}

/// The record that erases a user from the segments of `seen`, except from one in which the user was seen later.
pub fn forget_seen(fingerprint: Fingerprint, seen: &[Membership]) -> Vec<u8> {
    let mut out = vec![FORGET_SEEN];
    out.extend_from_slice(&fingerprint.number().to_le_bytes());
    out.extend_from_slice(&length(seen.len()));
    for it in seen {
        push_segment(&mut out, &it.segment);
        out.extend_from_slice(&it.last_seen.number().to_le_bytes());
    }
    out
}

/// The record that removes the users and the trends of a segment.
pub fn drop_segment(segment: &Segment) -> Vec<u8> {
    let mut out = vec![DROP];
    push_segment(&mut out, segment);
    out
}

/// The record that erases every pair of `subject` that was received until `at`.
pub fn erased(subject: &Subject, at: Timestamp) -> Vec<u8> {
    let mut out = match subject {
        Subject::User(_) => vec![ERASED],
        Subject::Segment(_) => vec![DROPPED],
        Subject::Pair(..) => vec![ERASED_IN],
    };
    push_subject(&mut out, subject);
    out.extend_from_slice(&at.as_millisecond().to_le_bytes());
    out
}

/// What a record that [`erased`] made removes, and its instant in unix milliseconds; `None` for another record.
///
/// # Errors
///
/// The bytes are no record.
pub fn erasure(record: &[u8]) -> Result<Option<(Subject, i64)>, String> {
    let mut fields = Fields::of(record);
    let Some(subject) = subject(fields.u8()?, &mut fields)? else {
        return Ok(None);
    };
    let at = fields.i64()?;
    fields.end()?;
    Ok(Some((subject, at)))
}

fn push_subject(out: &mut Vec<u8>, subject: &Subject) {
    let (segment, user) = match subject {
        Subject::User(user) => (None, Some(user)),
        Subject::Segment(segment) => (Some(segment), None),
        Subject::Pair(segment, user) => (Some(segment), Some(user)),
    };
    if let Some(segment) = segment {
        push_segment(out, segment);
    }
    if let Some(user) = user {
        out.extend_from_slice(&user.number().to_le_bytes());
    }
}

/// Reads the subject of an erasure record of this kind; `None` for a record of another kind.
pub(super) fn subject(kind: u8, fields: &mut Fields<'_>) -> Result<Option<Subject>, String> {
    let user = |fields: &mut Fields<'_>| Ok::<_, String>(Fingerprint::from_number(fields.u64()?));
    Ok(Some(match kind {
        ERASED => Subject::User(user(fields)?),
        DROPPED => Subject::Segment(segment(fields)?),
        ERASED_IN => Subject::Pair(segment(fields)?, user(fields)?),
        _ => return Ok(None),
    }))
}

/// The record that tells other replicas that a segment differed from the store. It is for the feed, and in no log.
pub fn differing(segment: &Segment) -> Vec<u8> {
    let mut out = vec![DIFFERING];
    push_segment(&mut out, segment);
    out
}

/// The segment of a record that [`differing`] made; `None` for another record.
///
/// # Errors
///
/// The bytes are no record.
pub fn differing_segment(record: &[u8]) -> Result<Option<Segment>, String> {
    let mut fields = Fields::of(record);
    if fields.u8()? != DIFFERING {
        return Ok(None);
    }
    let segment = segment(&mut fields)?;
    fields.end()?;
    Ok(Some(segment))
}

/// The record of the position in a feed up to which everything is applied.
pub fn position(reached: &Reached) -> Vec<u8> {
    let mut out = vec![POSITION];
    following::push_position(&mut out, reached);
    out
}

/// The record of segments that were read from the store; `is_complete` means all segments.
pub fn covered(is_complete: bool, segments: &[Segment]) -> Vec<u8> {
    let mut out = vec![COVERED];
    following::push_covered(&mut out, is_complete, segments.iter());
    out
}

/// The record that removes the users of a segment, until it is covered again.
pub fn reset(segment: &Segment) -> Vec<u8> {
    let mut out = vec![RESET];
    push_segment(&mut out, segment);
    out
}

/// A record of several records, which are applied together. It has none yet: [`join`] adds them.
pub fn batch() -> Vec<u8> {
    vec![BATCH]
}

/// The record of the head of the index.
pub(super) fn head(head: Slot) -> Vec<u8> {
    let mut out = vec![HEAD];
    out.extend_from_slice(&head.number().to_le_bytes());
    out
}

/// The record which says that users who enter and leave over `window` slots are counted since `since`.
pub(super) fn counting(since: Slot, window: u32) -> Vec<u8> {
    let mut out = vec![COUNTING];
    out.extend_from_slice(&since.number().to_le_bytes());
    out.extend_from_slice(&window.to_le_bytes());
    out
}

/// The record at the position to which the counters of a snapshot belong.
pub(super) fn mark() -> Vec<u8> {
    vec![MARK]
}

/// One record of `first` and then `record`.
pub(super) fn after(first: &[Vec<u8>], record: Vec<u8>) -> Vec<u8> {
    if first.is_empty() {
        return record;
    }
    let mut out = batch();
    first.iter().for_each(|first| join(&mut out, first));
    match record.split_first() {
        Some((&BATCH, joined)) => out.extend_from_slice(joined),
        _ => join(&mut out, &record),
    }
    out
}

/// Appends a record to joined records: `length u32 | record`.
pub fn join(joined: &mut Vec<u8>, record: &[u8]) {
    joined.extend_from_slice(&length(record.len()));
    joined.extend_from_slice(record);
}

/// Calls `each` with every one of the joined records.
///
/// # Errors
///
/// The bytes are not joined records, or `each` failed.
pub fn split<'a>(
    joined: &'a [u8],
    mut each: impl FnMut(&'a [u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut fields = Fields::of(joined);
    while !fields.is_empty() {
        let length = fields.u32()? as usize;
        each(fields.bytes(length)?)?;
    }
    Ok(())
}

pub(super) fn push_segment(out: &mut Vec<u8>, segment: &Segment) {
    // A segment has at most 128 bytes.
    out.push(u8::try_from(segment.as_str().len()).unwrap_or(u8::MAX));
    out.extend_from_slice(segment.as_str().as_bytes());
}

/// Encodes a length. Lengths fit 32 bits, because a record comes from one request.
pub(super) fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Reads the next field as a segment.
pub(super) fn segment(fields: &mut Fields<'_>) -> Result<Segment, String> {
    let length = fields.u8()?;
    let name = std::str::from_utf8(fields.bytes(usize::from(length))?);
    let name = name.map_err(|_| "a segment is not UTF-8".to_owned())?;
    Segment::new(name).map_err(|error| error.to_string())
}

/// Reads a count and as many entries, which replace the contents of `entries`.
pub(super) fn entries(fields: &mut Fields<'_>, entries: &mut Vec<Entry>) -> Result<(), String> {
    let count = fields.u32()? as usize;
    let bytes = fields.bytes(count.checked_mul(8).ok_or("too many entries")?)?;
    entries.clear();
    let words = bytes.as_chunks::<8>().0.iter();
    entries.extend(words.map(|word| Entry::from_bits(u64::from_le_bytes(*word))));
    Ok(())
}
