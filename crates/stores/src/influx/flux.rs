//! Builds the Flux queries. Flux over HTTP has no bound parameters, so every name is escaped here.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::line::{
    DOCUMENT, ERASED, INSTALLATION, MARK, PAIR, PROPERTY, RECORD, SENTINEL, TREND, USER,
    USER_ERASED, USERS, stored_tag, window_tag,
};
use domain::{Resolution, Segment, Slot, Timestamp, UserId, Window};

/// A range of whole slots. Both ends are explicit, because expired points stay visible for a while, and points ahead of
/// `as_of` may exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The start, inclusive.
    pub(super) start: Timestamp,
    /// The end, exclusive.
    pub(super) stop: Timestamp,
}

impl Range {
    /// The slots that a count over `window` as of `as_of` covers.
    pub(super) fn of(window: Window, as_of: Timestamp, resolution: Resolution) -> Self {
        Self::of_slots(&window.slots_as_of(resolution.slot_of(as_of)), resolution)
    }

    /// The range of these slots.
    pub(super) fn of_slots(slots: &RangeInclusive<Slot>, resolution: Resolution) -> Self {
        Self {
            start: resolution.start_of(*slots.start()),
            stop: resolution.start_of(Slot::new(slots.end().number() + 1)),
        }
    }

    /// The range, split at the boundaries of shards of this length. Within one shard a field has one type: see
    /// [`fields`](super::fields).
    pub(super) fn pieces(self, shard: Duration) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut start = self.start;
        while start < self.stop {
            let stop = Self::shard_at(start, shard).stop.min(self.stop);
            pieces.push(Self { start, stop });
            start = stop;
        }
        pieces
    }

    /// The range of the shard of this length that contains `at`.
    pub(super) fn shard_at(at: Timestamp, shard: Duration) -> Self {
        let length = i64::try_from(shard.as_secs().max(1)).unwrap_or(i64::MAX);
        let number = at
            .as_second()
            .saturating_sub(SHARDS_FROM)
            .div_euclid(length);
        let begin = |number: i64| {
            let seconds = number.saturating_mul(length).saturating_add(SHARDS_FROM);
            Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
        };
        Self {
            start: begin(number),
            stop: begin(number + 1),
        }
    }

    fn as_flux(self) -> String {
        format!("range(start: {}, stop: {})", self.start, self.stop)
    }
}

/// A Monday. The server aligns shards of hours, days and weeks to the start of year 1, which was a Monday.
const SHARDS_FROM: i64 = 4 * 86_400;

/// Whether a count filters out erased points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Erased {
    /// No filter: the range has no erased points, or it is not known yet. A filter on values costs a quarter of the count.
    Ignored,
    /// Erased points are filtered out, because the range has some.
    FilteredOut,
}

/// The number of distinct users of each of `segments`: one row with `segment` and `_value`, or no row for 0.
pub(super) fn count(bucket: &str, segments: &[Segment], range: Range, erased: Erased) -> String {
    format!(
        "{}\n|> distinct()\n|> count()",
        users_of(bucket, segments, range, erased)
    )
}

/// The same over ranges that may have different field types. Points of another type never match the filter, which
/// compares with a string.
pub(super) fn count_apart(bucket: &str, segments: &[Segment], pieces: &[Range]) -> String {
    let users = |range: &Range| users_of(bucket, segments, *range, Erased::FilteredOut);
    match pieces {
        // `union` needs at least two tables.
        [] | [_] => pieces.iter().map(users).collect::<String>() + "\n|> distinct()\n|> count()",
        _ => {
            let tables: Vec<String> = pieces.iter().map(users).collect();
            format!(
                "union(tables: [\n{}\n])\n|> distinct()\n|> count()",
                tables.join(",\n")
            )
        }
    }
}

/// One table for each of `segments`, with one `_value` per point.
fn users_of(bucket: &str, segments: &[Segment], range: Range, erased: Erased) -> String {
    let filter = match erased {
        Erased::Ignored => String::new(),
        Erased::FilteredOut => format!(" and {}", not_erased()),
    };
    format!(
        "{} and {}{filter})\
         \n|> keep(columns: [\"segment\", \"_field\", \"_value\"])",
        from_pairs(bucket, range),
        is_one_of(segments),
    )
}

fn is_one_of(segments: &[Segment]) -> String {
    let is = |segment: &Segment| format!("r.segment == {}", string_literal(&stored_tag(segment)));
    match segments {
        [only] => is(only),
        several => {
            let several: Vec<String> = several.iter().map(is).collect();
            format!("({})", several.join(" or "))
        }
    }
}

/// The latest marker of overwritten points in each segment: one row with `segment` and `_time`.
pub(super) fn last_erased(bucket: &str, range: Range) -> String {
    format!(
        "from(bucket: {})\n|> {}\n|> filter(fn: (r) => r._measurement == \"{ERASED}\" \
         and r._field == \"points\")\n|> last()\n|> keep(columns: [\"segment\", \"_time\"])",
        string_literal(bucket),
        range.as_flux(),
    )
}

/// The recorded erasures from `since` on: rows with `_time` and `_value`.
pub(super) fn erasures(bucket: &str, since: Timestamp) -> String {
    format!(
        "from(bucket: {})\n|> range(start: {since}, stop: 2200-01-01T00:00:00Z)\
         \n|> filter(fn: (r) => r._measurement == \"{USER_ERASED}\" and r._field == \"{MARK}\")\
         \n|> keep(columns: [\"_time\", \"_value\"])",
        string_literal(bucket),
    )
}

/// The segments with a user in `range`: one row with `segment` per segment.
pub(super) fn segments(bucket: &str, range: Range) -> String {
    format!(
        "{} and r.segment != \"\" and {})\n|> first()\n|> keep(columns: [\"segment\"])",
        from_pairs(bucket, range),
        not_erased(),
    )
}

/// The latest point of `user` in each segment: rows with `segment` and `_time`.
pub(super) fn memberships(bucket: &str, user: &UserId<'_>, range: Range) -> String {
    format!(
        "{}\n|> last()\n|> keep(columns: [\"segment\", \"_time\"])",
        points_of(bucket, user, range)
    )
}

/// Every point of `user`, in these segments or in all: rows with `segment` and `_time`.
pub(super) fn points(
    bucket: &str,
    user: &UserId<'_>,
    range: Range,
    segments: Option<&[Segment]>,
) -> String {
    let among = segments.map_or_else(String::new, |segments| {
        format!("\n|> filter(fn: (r) => {})", is_one_of(segments))
    });
    format!(
        "{}{among}\n|> keep(columns: [\"segment\", \"_time\"])",
        points_of(bucket, user, range)
    )
}

/// Every point whose user was overwritten: rows with `segment` and `_time`.
pub(super) fn overwritten(bucket: &str, range: Range) -> String {
    format!(
        "{} and r.segment != \"\" and r._value == {})\n|> keep(columns: [\"segment\", \"_time\"])",
        from_pairs(bucket, range),
        string_literal(SENTINEL),
    )
}

/// Every point of `segment` that is not erased: rows with `_value` and `_time`.
pub(super) fn export(bucket: &str, segment: &Segment, range: Range) -> String {
    format!(
        "{} and r.segment == {} and {})\n|> keep(columns: [\"_time\", \"_value\"])",
        from_pairs(bucket, range),
        string_literal(&stored_tag(segment)),
        not_erased(),
    )
}

/// The trend of `segment` over `window`: one row per point with `_time` and `_value`, oldest first. With a step, the
/// server returns only the last point of each step since the epoch.
pub(super) fn trend(
    bucket: &str,
    segment: &Segment,
    window: Window,
    range: Range,
    step: Option<Duration>,
) -> String {
    let thinned = step.map_or_else(String::new, |step| {
        let seconds = step.as_secs().max(1);
        format!("\n|> window(every: {seconds}s)\n|> last()\n|> group()")
    });
    format!(
        "from(bucket: {})\n|> {}\n|> filter(fn: (r) => r._measurement == \"{TREND}\" \
         and r._field == \"{USERS}\" and r.segment == {} and r.window == {}){thinned}\
         \n|> keep(columns: [\"_time\", \"_value\"])\n|> sort(columns: [\"_time\"])",
        string_literal(bucket),
        range.as_flux(),
        string_literal(&stored_tag(segment)),
        string_literal(&window_tag(window)),
    )
}

/// The installation's records: rows with `id`, `_time` and `_value`.
pub(super) fn installation(bucket: &str) -> String {
    format!(
        "from(bucket: {})\n|> range(start: 1970-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z)\
         \n|> filter(fn: (r) => r._measurement == \"{INSTALLATION}\" and r._field == \"{RECORD}\")\
         \n|> keep(columns: [\"id\", \"_time\", \"_value\"])",
        string_literal(bucket),
    )
}

/// The latest point of each property of the installation: rows with `_time` and `_value`.
pub(super) fn properties(bucket: &str) -> String {
    format!(
        "from(bucket: {})\n|> range(start: 1970-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z)\
         \n|> filter(fn: (r) => r._measurement == \"{PROPERTY}\" and r._field == \"{DOCUMENT}\")\
         \n|> last()\n|> keep(columns: [\"_time\", \"_value\"])",
        string_literal(bucket),
    )
}

/// The cheapest query that needs the bucket, read permission for it, and the query engine.
pub(super) fn probe(bucket: &str, range: Range) -> String {
    format!(
        "{})\n|> limit(n: 1)\n|> keep(columns: [\"_time\"])",
        from_pairs(bucket, range)
    )
}

/// The field types that a query matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Types {
    /// Only the types that this program writes: a string for a user, an integer for a number of users.
    Ours,
    /// Any type.
    Any,
}

/// Returns a row if `measurement` has a point with the field that this program writes, otherwise no rows.
pub(super) fn any_point(bucket: &str, measurement: &str, range: Range, types: Types) -> String {
    let (field, ours) = match measurement {
        TREND => (USERS, "int"),
        _ => (USER, "string"),
    };
    let of_type = match types {
        Types::Ours => {
            format!("\n|> filter(fn: (r) => types.isType(v: r._value, type: \"{ours}\"))")
        }
        Types::Any => String::new(),
    };
    format!(
        "import \"types\"\nfrom(bucket: {})\n|> {}\n|> filter(fn: (r) => r._measurement == \"{measurement}\" \
         and r._field == \"{field}\")\n|> first(){of_type}\n|> keep(columns: [\"_time\"])\n|> limit(n: 1)",
        string_literal(bucket),
        range.as_flux(),
    )
}

fn points_of(bucket: &str, user: &UserId<'_>, range: Range) -> String {
    format!(
        "{} and r.segment != \"\" and r._value == {})",
        from_pairs(bucket, range),
        string_literal(user.as_str()),
    )
}

/// The common start of all queries for pairs. The filter's parenthesis stays open.
fn from_pairs(bucket: &str, range: Range) -> String {
    format!(
        "from(bucket: {})\n|> {}\n|> filter(fn: (r) => r._measurement == \"{PAIR}\" and r._field == \"{USER}\"",
        string_literal(bucket),
        range.as_flux(),
    )
}

fn not_erased() -> String {
    format!("r._value != {}", string_literal(SENTINEL))
}

/// A Flux string literal.
///
/// `${` starts an expression within a literal, and the scanner's rules for it are irregular: `$\` is an error too. So
/// every character with a special meaning is written as a hexadecimal escape.
fn string_literal(value: &str) -> String {
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
    use domain::TimeFrame;

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
    fn pieces_are_shards_and_leave_nothing_out() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let range = Range {
            start: at("2026-11-27T22:30:00Z"),
            stop: at("2026-12-01T00:01:00Z"),
        };
        for (hours, stops) in [
            (24, &["28T00", "29T00", "30T00", "01T00", "01T00"][..]),
            // Mondays.
            (7 * 24, &["30T00", "01T00"]),
        ] {
            let pieces = range.pieces(Duration::from_hours(hours));
            let ends: Vec<String> = pieces
                .iter()
                .map(|piece| piece.stop.to_string()[8..13].to_owned())
                .collect();
            assert_eq!(ends, stops, "shards of {hours} h");
            assert_eq!(pieces[0].start, range.start);
            assert!(pieces.windows(2).all(|two| two[0].stop == two[1].start));
            assert_eq!(pieces.last().unwrap().stop, range.stop);
        }
    }

    #[test]
    fn a_count_reads_as_the_design_states_it() {
        let [s, t] = ["s", "t"].map(|name| Segment::new(name).unwrap());
        let query = count("b", std::slice::from_ref(&s), range(), Erased::Ignored);
        assert_eq!(
            query,
            "from(bucket: \"b\")\n\
             |> range(start: 1970-01-01T00:01:00Z, stop: 1970-01-01T00:02:00Z)\n\
             |> filter(fn: (r) => r._measurement == \"pair\" and r._field == \"user\" \
             and r.segment == \"s\")\n\
             |> keep(columns: [\"segment\", \"_field\", \"_value\"])\n|> distinct()\n|> count()"
        );
        let both = count("b", &[s.clone(), t], range(), Erased::FilteredOut);
        let filter =
            "and (r.segment == \"s\" or r.segment == \"t\") and r._value != \"\\x01erased\")";
        assert!(both.contains(filter), "{both}");
        let apart = count_apart("b", &[s], &range().pieces(Duration::from_secs(30)));
        assert_eq!(apart.matches("from(bucket: \"b\")").count(), 2, "{apart}");
    }

    #[test]
    fn names_can_not_leave_their_literal() {
        assert_eq!(string_literal(r#"a"b\c"#), r#""a\x22b\x5cc""#);
        assert_eq!(
            string_literal(r"${x} $\{"),
            r#""\x24\x7bx\x7d \x24\x5c\x7b""#
        );
        assert_eq!(string_literal("\u{1}é=,'\u{7f}"), "\"\\x01é=,'\\x7f\"");
    }
}
