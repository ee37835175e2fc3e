//! What the log's records say, and how they are written. [`encode`](super::encode) writes those of pairs.
//!
//! All little endian. A segment is `length u8, name`.
//! - pairs: `1 u8 | base slot u64 | groups u32 | (segment, entries u32, entry u64 *)*`
//! - forget: `2 u8 | fingerprint u64`
//! - trend: `3 u8 | points u32 | (segment, window seconds u64, at unix seconds i64, users u64)*`

use crate::domain::{Segment, TrendPoint};
use crate::index::{Entry, Fingerprint};

pub(super) const PAIRS: u8 = 1;
pub(super) const FORGET: u8 = 2;
pub(super) const TREND: u8 = 3;

/// The record that erases a user.
pub(super) fn forget(fingerprint: Fingerprint) -> Vec<u8> {
    let mut out = vec![FORGET];
    out.extend_from_slice(&fingerprint.number().to_le_bytes());
    out
}

/// The record of trend points.
pub(super) fn trend(points: &[TrendPoint]) -> Vec<u8> {
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

pub(super) fn push_segment(out: &mut Vec<u8>, segment: &Segment) {
    // A segment has at most 128 bytes.
    out.push(u8::try_from(segment.as_str().len()).unwrap_or(u8::MAX));
    out.extend_from_slice(segment.as_str().as_bytes());
}

/// Lengths of one record fit 32 bits: it is made of one request.
pub(super) fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Reads fields off the front of a record; each error says that it ends early or what is wrong.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or("the record ends early")?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, String> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or("the record ends early")?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn segment(&mut self) -> Result<Segment, String> {
        let length = self.u8()?;
        let name = std::str::from_utf8(self.bytes(usize::from(length))?);
        let name = name.map_err(|_| "a segment is not UTF-8".to_owned())?;
        Segment::new(name).map_err(|error| error.to_string())
    }

    /// Replaces `entries` by the next ones: a count and as many words.
    pub(super) fn entries(&mut self, entries: &mut Vec<Entry>) -> Result<(), String> {
        let count = self.u32()? as usize;
        let bytes = self.bytes(count.checked_mul(8).ok_or("too many entries")?)?;
        entries.clear();
        let words = bytes.as_chunks::<8>().0.iter();
        entries.extend(words.map(|word| Entry::from_bits(u64::from_le_bytes(*word))));
        Ok(())
    }

    pub(super) fn end(&self) -> Result<(), String> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("bytes follow the record's end".to_owned())
        }
    }
}
