//! Fuzz target: event ids, as clients send them.

use super::Change;
use super::ring::{Filter, ReadResult, Ring};
use domain::{Covered, Segment, Timestamp};
use fuzzing::spell;

/// A client that reconnects with any id gets every event after it, or learns that it missed some. It never silently gets
/// fewer.
#[test]
fn positions() {
    bolero::check!()
        .with_type::<(u8, bool, Vec<u8>)>()
        .for_each(|(events, forgotten, id)| {
            let mut ring = Ring::new(0xabc);
            let segment = Segment::new("sports").unwrap();
            for users in 0..u64::from(*events) {
                let change = Change {
                    segment: segment.clone(),
                    users: Some(users),
                    as_of: Timestamp::UNIX_EPOCH,
                    flow: None,
                };
                ring.push(&change, Covered::default());
                if *forgotten && users == 3 {
                    ring.forget();
                }
            }
            let words = &[
                "0000000000000abc-",
                "0000000000000ABC-",
                "18446744073709551615",
                "1",
                "0",
                "+",
                "-",
            ];
            let id = String::from_utf8_lossy(&spell(id, words)).into_owned();
            let mut position = ring.after(&id);
            let next = ring.next();
            let mut received = Vec::new();
            let lost = loop {
                match ring.read(&mut position, &Filter::default()) {
                    ReadResult::Events(chunk) => received.extend(
                        chunk
                            .lines()
                            .filter_map(|line| line.strip_prefix("id: "))
                            .map(str::to_owned),
                    ),
                    ReadResult::Lost => break true,
                    ReadResult::Nothing => break false,
                }
            };
            assert_eq!(position, next);
            assert!(received.is_empty() || !lost);
            if !lost {
                let (epoch, last) = id.split_once('-').unwrap();
                assert_eq!(epoch, "0000000000000abc");
                let last: u64 = last.parse().unwrap();
                let all: Vec<String> = (last + 1..next)
                    .map(|number| format!("{epoch}-{number}"))
                    .collect();
                assert_eq!(received, all);
            }
        });
}
