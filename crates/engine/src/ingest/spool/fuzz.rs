//! Fuzz target: spool records of arbitrary bytes.

use bolero::TypeGenerator;

use super::codec::{Record, encode};
use domain::{Batch, BatchBuilder, Slot, Timestamp, UserId};
use fuzzing::{Edit, edit};

#[derive(Debug, TypeGenerator)]
struct Input {
    pairs: Vec<(Vec<u8>, Vec<u8>, u64)>,
    most: u8,
    edits: Vec<Edit>,
    other: Vec<u8>,
}

type Strings = Vec<(String, String, u64)>;

fn strings(batch: &Batch) -> Strings {
    let of_pair = |pair: domain::Pair<'_>| {
        let user = pair.user.as_str().to_owned();
        (user, pair.segment.to_string(), pair.slot.number())
    };
    batch.pairs().map(of_pair).collect()
}

/// Decodes a record. Asserts that it has as many pairs as its head declares, with valid names.
fn decode(payload: &[u8]) -> Result<Strings, String> {
    let Record::Pairs(pairs) = Record::read(payload)? else {
        return Ok(Vec::new());
    };
    let count = pairs.count;
    let mut batch = BatchBuilder::default();
    pairs.decode_into(&mut batch, |_, user| Some(user))?;
    let strings = strings(&batch.finish());
    assert_eq!(strings.len(), count as usize);
    for (user, segment, _) in &strings {
        assert!(UserId::new(user).is_ok() && domain::Segment::new(segment).is_ok());
    }
    Ok(strings)
}

#[test]
fn records() {
    bolero::check!().with_type::<Input>().for_each(|input| {
        let mut batch = BatchBuilder::default();
        for (user, segment, slot) in &input.pairs {
            let (user, segment) = (
                String::from_utf8_lossy(user),
                String::from_utf8_lossy(segment),
            );
            if let Ok(user) = UserId::new(user) {
                let _ = batch.push_pair(&user, &segment, Slot::new(*slot));
            }
        }
        let batch = batch.finish();
        let mut decoded = Vec::new();
        for mut payload in encode(
            &batch,
            Timestamp::UNIX_EPOCH,
            usize::from(input.most).max(1),
        ) {
            decoded.extend(decode(&payload).unwrap());
            edit(&mut payload, &input.edits);
            let _ = decode(&payload);
        }
        assert_eq!(decoded, strings(&batch));
        let _ = decode(&input.other);
    });
}
