//! Fuzz target: parses damaged checkpoints of a copy.

use std::collections::BTreeMap;

use super::checkpoint::Document;
use fuzzing::{Edit, edit};

#[test]
fn checkpoints() {
    type Input = (BTreeMap<Vec<u8>, Option<u64>>, i64, Vec<Edit>, Vec<u8>);
    bolero::check!()
        .with_type::<Input>()
        .for_each(|(segments, begun, edits, other)| {
            let segments = segments.iter().map(|(name, next)| {
                let name = String::from_utf8_lossy(name).into_owned();
                (name, *next)
            });
            let document = Document::of_test(segments.collect(), *begun);
            let mut file = document.render().unwrap();
            assert_eq!(Document::parse(&file).as_ref(), Ok(&document));
            edit(&mut file, edits);
            if let Ok(read) = Document::parse(&file) {
                assert_eq!(read, document);
            }
            let _ = Document::parse(other);
        });
}
