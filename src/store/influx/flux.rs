//! The texts of the Flux queries. Flux over HTTP binds no parameters, so that every name is escaped here.

use std::ops::RangeInclusive;

use super::line::{ERASED, PAIR, SENTINEL, TREND, USER, stored_tag, window_tag};
use crate::domain::{Resolution, Segment, Slot, Timestamp, UserId, Window};

/// A range of whole slots, stated from both ends: expired points stay visible for a while, and points ahead of
/// `as_of` may exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The first instant that belongs to it.
    pub(super) start: Timestamp,
    /// The first instant that no longer does.
    pub(super) stop: Timestamp,
}

impl Range {
    /// The slots that a count over `window` as of `as_of` covers.
    pub(super) fn of(window: Window, as_of: Timestamp, resolution: Resolution) -> Self {
        Self::of_slots(&window.slots_as_of(resolution.slot_of(as_of)), resolution)
    }

    /// These slots.
    pub(super) fn of_slots(slots: &RangeInclusive<Slot>, resolution: Resolution) -> Self {
        Self {
            start: resolution.start_of(*slots.start()),
            stop: resolution.start_of(Slot::new(slots.end().number() + 1)),
        }
    }

    fn as_flux(self) -> String {
        format!("range(start: {}, stop: {})", self.start, self.stop)
    }
}

/// Whether a count leaves out what was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Erased {
    /// The range has nothing erased, or it is not known yet: a filter on values costs a quarter of the count.
    Ignored,
    /// The range has something erased.
    FilteredOut,
}

/// The distinct users of `segment`, as one row with `_value`, or no row for none.
pub(super) fn count(bucket: &str, segment: &Segment, range: Range, erased: Erased) -> String {
    let filter = match erased {
        Erased::Ignored => String::new(),
        Erased::FilteredOut => format!(" and {}", not_erased()),
    };
    format!(
        "{} and r.segment == {}{filter})\
         \n|> keep(columns: [\"segment\", \"_field\", \"_value\"])\n|> distinct()\n|> count()",
        from_pairs(bucket, range),
        text(&stored_tag(segment)),
    )
}

/// The latest note of something erased from `segment`, as one row with `_time`, or no row for none.
pub(super) fn last_erased(bucket: &str, segment: &Segment, range: Range) -> String {
    format!(
        "from(bucket: {})\n|> {}\n|> filter(fn: (r) => r._measurement == \"{ERASED}\" \
         and r._field == \"points\" and r.segment == {})\n|> last()",
        text(bucket),
        range.as_flux(),
        text(&stored_tag(segment)),
    )
}

/// The segments with a user in `range`, one row each with `segment`.
pub(super) fn segments(bucket: &str, range: Range) -> String {
    format!(
        "{} and r.segment != \"\" and {})\n|> first()\n|> keep(columns: [\"segment\"])",
        from_pairs(bucket, range),
        not_erased(),
    )
}

/// The latest point of `user` per segment, with `segment` and `_time`.
pub(super) fn memberships(bucket: &str, user: &UserId<'_>, range: Range) -> String {
    format!(
        "{}\n|> last()\n|> keep(columns: [\"segment\", \"_time\"])",
        points_of(bucket, user, range)
    )
}

/// Every point of `user`, with `segment` and `_time`.
pub(super) fn points(bucket: &str, user: &UserId<'_>, range: Range) -> String {
    format!(
        "{}\n|> keep(columns: [\"segment\", \"_time\"])",
        points_of(bucket, user, range)
    )
}

/// Every point of `segment`, with `_value` and `_time`.
pub(super) fn export(bucket: &str, segment: &Segment, range: Range) -> String {
    format!(
        "{} and r.segment == {} and {})\n|> keep(columns: [\"_time\", \"_value\"])",
        from_pairs(bucket, range),
        text(&stored_tag(segment)),
        not_erased(),
    )
}

/// The trend of `segment` over `window`, one row a point with `_time` and `_value`, oldest first.
pub(super) fn trend(bucket: &str, segment: &Segment, window: Window, range: Range) -> String {
    format!(
        "from(bucket: {})\n|> {}\n|> filter(fn: (r) => r._measurement == \"{TREND}\" \
         and r._field == \"users\" and r.segment == {} and r.window == {})\
         \n|> keep(columns: [\"_time\", \"_value\"])\n|> sort(columns: [\"_time\"])",
        text(bucket),
        range.as_flux(),
        text(&stored_tag(segment)),
        text(&window_tag(window)),
    )
}

/// The least query that needs the bucket, the token's permission to read it and the query engine.
pub(super) fn probe(bucket: &str, range: Range) -> String {
    format!(
        "{})\n|> limit(n: 1)\n|> keep(columns: [\"_time\"])",
        from_pairs(bucket, range)
    )
}

fn points_of(bucket: &str, user: &UserId<'_>, range: Range) -> String {
    format!(
        "{} and r.segment != \"\" and r._value == {})",
        from_pairs(bucket, range),
        text(user.as_str()),
    )
}

/// The beginning that all queries for pairs share, with the filter left open.
fn from_pairs(bucket: &str, range: Range) -> String {
    format!(
        "from(bucket: {})\n|> {}\n|> filter(fn: (r) => r._measurement == \"{PAIR}\" and r._field == \"{USER}\"",
        text(bucket),
        range.as_flux(),
    )
}

fn not_erased() -> String {
    format!("r._value != {}", text(SENTINEL))
}

/// A Flux string literal.
///
/// `${` begins an expression within a literal, and the scanner looks for it in ways of its own: `$\` is an error
/// too. So whatever has a meaning there stands as its code.
fn text(value: &str) -> String {
    let mut literal = String::with_capacity(value.len() + 2);
    literal.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$' | '{' | '}') || c.is_ascii_control() {
            literal.push_str(&format!("\\x{:02x}", u32::from(c)));
        } else {
            literal.push(c);
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::TimeFrame;

    fn range() -> Range {
        Range {
            start: Timestamp::from_second(60).unwrap(),
            stop: Timestamp::from_second(120).unwrap(),
        }
    }

    #[test]
    fn ranges_are_whole_slots_from_both_ends() {
        let frame = TimeFrame::new(
            Duration::from_secs(600),
            Duration::from_secs(60),
            Duration::ZERO,
        );
        let frame = frame.unwrap();
        let now = Timestamp::from_second(1_800_000_059).unwrap();
        let range = Range::of(frame.full_window(), now, frame.resolution());
        assert_eq!(range.start.as_second(), 1_800_000_000 - 540);
        assert_eq!(range.stop.as_second(), 1_800_000_060);
    }

    #[test]
    fn a_count_reads_as_the_design_states_it() {
        let query = count("b", &Segment::new("s").unwrap(), range(), Erased::Ignored);
        assert_eq!(
            query,
            "from(bucket: \"b\")\n\
             |> range(start: 1970-01-01T00:01:00Z, stop: 1970-01-01T00:02:00Z)\n\
             |> filter(fn: (r) => r._measurement == \"pair\" and r._field == \"user\" \
             and r.segment == \"s\")\n\
             |> keep(columns: [\"segment\", \"_field\", \"_value\"])\n|> distinct()\n|> count()"
        );
        let filtered = count(
            "b",
            &Segment::new("s").unwrap(),
            range(),
            Erased::FilteredOut,
        );
        assert!(
            filtered.contains("and r._value != \"\\x01erased\")"),
            "{filtered}"
        );
    }

    #[test]
    fn names_can_not_leave_their_literal() {
        assert_eq!(text(r#"a"b\c"#), r#""a\x22b\x5cc""#);
        assert_eq!(text(r"${x} $\{"), r#""\x24\x7bx\x7d \x24\x5c\x7b""#);
        assert_eq!(text("\u{1}é=,'\u{7f}"), "\"\\x01é=,'\\x7f\"");
    }
}
