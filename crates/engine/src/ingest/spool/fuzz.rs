//! Fuzz target: records of a spool, whatever bytes they are.

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

type Texts = Vec<(String, String, u64)>;

fn texts(batch: &Batch) -> Texts {
    let text = |pair: domain::Pair<'_>| {
        let user = pair.user.as_str().to_owned();
        (user, pair.segment.to_string(), pair.slot.number())
    };
    batch.pairs().map(text).collect()
}

/// The pairs of a record: as many as it says, each with names that are valid.
fn decode(payload: &[u8]) -> Result<Texts, String> {
    let Record::Pairs(pairs) = Record::read(payload)? else {
        return Ok(Vec::new());
    };
    let count = pairs.count;
    let mut batch = BatchBuilder::default();
    pairs.decode_into(&mut batch, |_| false)?;
    let texts = texts(&batch.finish());
    assert_eq!(texts.len(), count as usize);
    for (user, segment, _) in &texts {
        assert!(UserId::new(user).is_ok() && domain::Segment::new(segment).is_ok());
    }
    Ok(texts)
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
        assert_eq!(decoded, texts(&batch));
        let _ = decode(&input.other);
    });
}
