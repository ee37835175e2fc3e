//! The binary format of spooled records.
//!
//! All numbers are little-endian. The first byte is the kind:
//! 1, pairs: received `i64` (microseconds), pairs `u32`, segments `u32`, then each segment as `length u16 |
//! string`, then each pair as `segment u32 | slot u64 | length u16 | user`;
//! 2, an erased user, from versions before 0.2.0: the user id;
//! 3, pairs in quarantine: failures `u32`, due `i64` (microseconds), then the fields of kind 1.

use domain::{Batch, BatchBuilder, Segment, Slot, Timestamp, UserId};
use wal::Fields;

const PAIRS: u8 = 1;
const ERASED: u8 = 2;
const QUARANTINED: u8 = 3;

/// A record whose head is decoded.
pub(super) enum Record<'a> {
    /// Pairs.
    Pairs(Pairs<'a>),
    /// An erased user, of whom no earlier pair may be delivered.
    Erased(UserId<'a>),
}

/// The head of a record of pairs, and its undecoded rest.
pub(super) struct Pairs<'a> {
    pub(super) received: Timestamp,
    pub(super) count: u32,
    /// The number of failures while the store took other records; 0 outside of quarantine.
    pub(super) failures: u32,
    /// The time of the next retry.
    pub(super) due: Timestamp,
    rest: Fields<'a>,
}

/// Encodes `batch` as records, each with at most `most` pairs.
pub(super) fn encode(batch: &Batch, received: Timestamp, most: usize) -> Vec<Vec<u8>> {
    let mut pairs = batch.indexed();
    let mut records = Vec::with_capacity(batch.len().div_ceil(most));
    while pairs.len() > 0 {
        let count = pairs.len().min(most);
        let mut record = Vec::with_capacity(64 + count * 32);
        record.push(PAIRS);
        record.extend(received.as_microsecond().to_le_bytes());
        record.extend(length(count));
        record.extend(length(batch.segments().len()));
        for segment in batch.segments() {
            push_string(&mut record, segment.as_str());
        }
        for (segment, user, slot) in pairs.by_ref().take(count) {
            record.extend(length(segment));
            record.extend(slot.number().to_le_bytes());
            push_string(&mut record, user.as_str());
        }
        records.push(record);
    }
    records
}

/// The size of a request bounds the number of its segments and pairs, far below `u32::MAX`.
fn length(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

/// User ids have at most 256 bytes, and segments fewer, so the length fits into a `u16`.
fn push_string(record: &mut Vec<u8>, string: &str) {
    let length = u16::try_from(string.len()).unwrap_or(u16::MAX);
    record.extend(length.to_le_bytes());
    record.extend(string.as_bytes());
}

impl<'a> Record<'a> {
    /// The record of an erased user, as versions before 0.2.0 wrote it.
    #[cfg(test)]
    pub(super) fn erased(user: &UserId<'_>) -> Vec<u8> {
        let mut record = vec![ERASED];
        record.extend(user.as_str().as_bytes());
        record
    }

    /// Reads the head of a record. The log verifies its records, so an error means that another program wrote this one.
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, String> {
        let mut fields = Fields::of(payload);
        match fields.u8()? {
            PAIRS => Ok(Self::Pairs(pairs(fields, 0, Timestamp::UNIX_EPOCH)?)),
            QUARANTINED => {
                let failures = fields.u32()?;
                let due = time(&mut fields)?;
                Ok(Self::Pairs(pairs(fields, failures, due)?))
            }
            ERASED => {
                let user = std::str::from_utf8(fields.rest()).map_err(|_| invalid())?;
                Ok(Self::Erased(UserId::new(user).map_err(|_| invalid())?))
            }
            _ => Err("a record of an unknown kind".to_owned()),
        }
    }
}

/// Encodes `batch` as records in quarantine, each with at most `most` pairs.
pub(super) fn encode_quarantined(
    batch: &Batch,
    received: Timestamp,
    most: usize,
    failures: u32,
    due: Timestamp,
) -> Vec<Vec<u8>> {
    let mut records = encode(batch, received, most);
    for record in &mut records {
        let mut head = vec![QUARANTINED];
        head.extend(failures.to_le_bytes());
        head.extend(due.as_microsecond().to_le_bytes());
        record.splice(..1, head);
    }
    records
}

fn pairs(mut fields: Fields<'_>, failures: u32, due: Timestamp) -> Result<Pairs<'_>, String> {
    Ok(Pairs {
        received: time(&mut fields)?,
        count: fields.u32()?,
        failures,
        due,
        rest: fields,
    })
}

impl<'a> Pairs<'a> {
    /// Appends the pairs to `batch`, each with the user that `user_of` returns; without those for which it returns none.
    pub(super) fn decode_into(
        self,
        batch: &mut BatchBuilder,
        user_of: impl Fn(&Segment, UserId<'a>) -> Option<UserId<'a>>,
    ) -> Result<(), String> {
        let mut fields = self.rest;
        let segments = fields.u32()?;
        let mut indices = Vec::new();
        for _ in 0..segments {
            let segment = Segment::new(string(&mut fields)?).map_err(|error| error.to_string())?;
            indices.push((batch.admit(segment.clone()), segment));
        }
        for _ in 0..self.count {
            let segment = fields.u32()? as usize;
            let slot = Slot::new(fields.u64()?);
            let user = UserId::new(string(&mut fields)?).map_err(|error| error.to_string())?;
            let Some((index, segment)) = indices.get(segment) else {
                return Err(invalid());
            };
            if let Some(user) = user_of(segment, user) {
                batch.push(&user, *index, slot);
            }
        }
        fields.end()
    }
}

fn invalid() -> String {
    "an invalid record".to_owned()
}

fn time(fields: &mut Fields<'_>) -> Result<Timestamp, String> {
    Timestamp::from_microsecond(fields.i64()?).map_err(|_| invalid())
}

fn string<'a>(fields: &mut Fields<'a>) -> Result<&'a str, String> {
    let length = fields.u16()?;
    std::str::from_utf8(fields.bytes(usize::from(length))?).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = BatchBuilder::default();
        for (user, segment, slot) in [("u1", "a", 7), ("Юля", "b c", 8), ("u3", "a", 9)] {
            let user = UserId::new(user).unwrap();
            batch.push_pair(&user, segment, Slot::new(slot)).unwrap();
        }
        batch.finish()
    }

    fn strings(batch: &Batch) -> Vec<(String, String, u64)> {
        let of_pair = |pair: domain::Pair<'_>| {
            let user = pair.user.as_str().to_owned();
            (user, pair.segment.as_str().to_owned(), pair.slot.number())
        };
        batch.pairs().map(of_pair).collect()
    }

    #[test]
    fn what_was_put_in_comes_out_in_order() {
        let received = Timestamp::from_microsecond(1_700_000_000_123_456).unwrap();
        for most in [1, 2, 100] {
            let mut decoded = BatchBuilder::default();
            for record in encode(&batch(), received, most) {
                let Record::Pairs(pairs) = Record::read(&record).unwrap() else {
                    panic!("a record of pairs");
                };
                assert_eq!(pairs.received, received);
                pairs
                    .decode_into(&mut decoded, |_, user| Some(user))
                    .unwrap();
            }
            assert_eq!(strings(&decoded.finish()), strings(&batch()));
        }
        assert!(encode(&Batch::default(), received, 1).is_empty());
    }

    #[test]
    fn quarantine_is_noted_beside_the_pairs() {
        let (received, due) = (now(1), now(60));
        let records = encode_quarantined(&batch(), received, 2, 7, due);
        assert_eq!(records.len(), 2);
        let mut decoded = BatchBuilder::default();
        for record in &records {
            let Record::Pairs(pairs) = Record::read(record).unwrap() else {
                panic!("a record of pairs");
            };
            assert_eq!(
                (pairs.failures, pairs.due, pairs.received),
                (7, due, received)
            );
            pairs
                .decode_into(&mut decoded, |_, user| Some(user))
                .unwrap();
        }
        assert_eq!(strings(&decoded.finish()), strings(&batch()));
    }

    fn now(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_erased_user_is_left_out() {
        let mut decoded = BatchBuilder::default();
        let record = encode(&batch(), Timestamp::UNIX_EPOCH, 100).remove(0);
        let Record::Pairs(pairs) = Record::read(&record).unwrap() else {
            panic!("a record of pairs");
        };
        pairs
            .decode_into(&mut decoded, |_, user| {
                (user.as_str() != "u1").then_some(user)
            })
            .unwrap();
        assert_eq!(decoded.len(), 2);
        let record = Record::erased(&UserId::new("u1").unwrap());
        let Record::Erased(user) = Record::read(&record).unwrap() else {
            panic!("an erased user");
        };
        assert_eq!(user.as_str(), "u1");
    }

    #[test]
    fn every_cut_and_every_stranger_is_an_error() {
        let whole = encode(&batch(), Timestamp::UNIX_EPOCH, 100).remove(0);
        let decode = |payload: &[u8]| match Record::read(payload)? {
            Record::Pairs(pairs) => {
                pairs.decode_into(&mut BatchBuilder::default(), |_, user| Some(user))
            }
            Record::Erased(_) => Ok(()),
        };
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "cut after {end} bytes");
        }
        assert!(decode(&[&whole[..], b"x"].concat()).is_err());
        assert!(decode(&[9, 9, 9]).is_err());
        assert!(decode(&[ERASED]).is_err());
    }
}
