//! Changed counts as text: `3600:12,86400:40 segment`, one line a segment.
//!
//! The lines of a tick are one argument of a script and one field of a stream's entry, and the counts of a line are a value
//! of the hash of all counts. Names of segments have no control characters, so a line break ends them.

use domain::Segment;
use domain::published::{BoardError, UsersPerWindow};

use super::damaged;

/// The lines of these changes.
pub(super) fn encode(changed: &[(Segment, UsersPerWindow)]) -> String {
    let mut lines = String::new();
    for (segment, users) in changed {
        let users = users.iter();
        let counts: Vec<_> = users
            .map(|(window, users)| format!("{window}:{users}"))
            .collect();
        lines.push_str(&counts.join(","));
        lines.push(' ');
        lines.push_str(segment.as_str());
        lines.push('\n');
    }
    lines
}

/// The changes of these lines, in order.
pub(super) fn decode(lines: &str) -> Result<Vec<(Segment, UsersPerWindow)>, BoardError> {
    let lines = lines.split_terminator('\n').map(|line| {
        let (counts, name) = line.split_once(' ').ok_or_else(|| damaged("a change"))?;
        count(name, counts)
    });
    lines.collect()
}

/// A segment and its counts.
pub(super) fn count(name: &str, counts: &str) -> Result<(Segment, UsersPerWindow), BoardError> {
    let segment = Segment::new(name).map_err(damaged)?;
    if counts.is_empty() {
        return Ok((segment, Vec::new()));
    }
    let users = counts.split(',').map(|count| {
        let (window, users) = count.split_once(':').ok_or_else(|| damaged("a count"))?;
        let number = |digits: &str| digits.parse().map_err(damaged);
        Ok((number(window)?, number(users)?))
    });
    Ok((segment, users.collect::<Result<_, BoardError>>()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(name: &str, users: &[(u64, u64)]) -> (Segment, UsersPerWindow) {
        (Segment::new(name).unwrap(), users.to_vec())
    }

    #[test]
    fn changes_are_lines() {
        let changed = [
            change("two words", &[(60, 1), (3_600, 2)]),
            change("gone", &[]),
        ];
        let lines = encode(&changed);
        assert_eq!(lines, "60:1,3600:2 two words\n gone\n");
        assert_eq!(decode(&lines).unwrap(), changed);
        assert_eq!(decode("").unwrap(), []);
    }

    #[test]
    fn other_text_is_damaged() {
        for lines in [
            "x", "x y", "60: y", "60:-1 y", "1:2,, y", "1:2 ", "1:2  y", "\n",
        ] {
            let damaged = decode(lines);
            assert!(
                matches!(damaged, Err(BoardError::Damaged(_))),
                "{lines:?} is {damaged:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_change_comes_back(
            changed in prop::collection::vec(
                ("\\PC{1,30}", prop::collection::vec(any::<(u64, u64)>(), 0..4)),
                0..20,
            )
        ) {
            let changed: Vec<_> = changed
                .into_iter()
                .filter_map(|(name, users)| Some((Segment::new(&name).ok()?, users)))
                .collect();
            prop_assert_eq!(decode(&encode(&changed)).unwrap(), changed);
        }
    }
}
