//! The texts of the Flux queries. Flux over HTTP binds no parameters, so that every name is escaped here.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::line::{
    ERASED, INSTALLATION, MARK, PAIR, RECORD, SENTINEL, TREND, USER, USER_ERASED, USERS,
    stored_tag, window_tag,
};
use domain::{Resolution, Segment, Slot, Timestamp, UserId, Window};

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

    /// The same range cut where shards of this length begin. Within a piece a field has one type: see
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

    /// The whole shard of this length that holds `at`.
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

/// A Monday: the server counts shards of hours, days and weeks from the year 1, which began with one.
const SHARDS_FROM: i64 = 4 * 86_400;

/// Whether a count leaves out what was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Erased {
    /// The range has nothing erased, or it is not known yet: a filter on values costs a quarter of the count.
    Ignored,
    /// The range has something erased.
    FilteredOut,
}

/// The distinct users of each of `segments`, as one row with `segment` and `_value`, or no row for none.
pub(super) fn count(bucket: &str, segments: &[Segment], range: Range, erased: Erased) -> String {
    format!(
        "{}\n|> distinct()\n|> count()",
        users_of(bucket, segments, range, erased)
    )
}

/// The same over ranges of which no two need have the same type of field. Points of other types match no filter on a
/// text.
pub(super) fn count_apart(bucket: &str, segments: &[Segment], pieces: &[Range]) -> String {
    let users = |range: &Range| users_of(bucket, segments, *range, Erased::FilteredOut);
    match pieces {
        // A union needs two.
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

/// One table for each of `segments`, of `_value`s that may repeat.
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
    let is = |segment: &Segment| format!("r.segment == {}", text(&stored_tag(segment)));
    match segments {
        [only] => is(only),
        several => {
            let several: Vec<String> = several.iter().map(is).collect();
            format!("({})", several.join(" or "))
        }
    }
}

/// The latest note of something erased from each segment, as one row with `segment` and `_time`.
pub(super) fn last_erased(bucket: &str, range: Range) -> String {
    format!(
        "from(bucket: {})\n|> {}\n|> filter(fn: (r) => r._measurement == \"{ERASED}\" \
         and r._field == \"points\")\n|> last()\n|> keep(columns: [\"segment\", \"_time\"])",
        text(bucket),
        range.as_flux(),
    )
}

/// The notes of erasures from `since` on, as rows with `_time` and `_value`.
pub(super) fn erasures(bucket: &str, since: Timestamp) -> String {
    format!(
        "from(bucket: {})\n|> range(start: {since}, stop: 2200-01-01T00:00:00Z)\
         \n|> filter(fn: (r) => r._measurement == \"{USER_ERASED}\" and r._field == \"{MARK}\")\
         \n|> keep(columns: [\"_time\", \"_value\"])",
        text(bucket),
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

/// Every point of `user`, in these segments or in all, with `segment` and `_time`.
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

/// Every point whose user was overwritten, with `segment` and `_time`.
pub(super) fn overwritten(bucket: &str, range: Range) -> String {
    format!(
        "{} and r.segment != \"\" and r._value == {})\n|> keep(columns: [\"segment\", \"_time\"])",
        from_pairs(bucket, range),
        text(SENTINEL),
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

/// The trend of `segment` over `window`, one row a point with `_time` and `_value`, oldest first; with a step the last
/// point of each step since the epoch, which the server finds while it reads.
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
        text(bucket),
        range.as_flux(),
        text(&stored_tag(segment)),
        text(&window_tag(window)),
    )
}

/// The records of what all instances agree on, as rows with `id`, `_time` and `_value`.
pub(super) fn installation(bucket: &str) -> String {
    format!(
        "from(bucket: {})\n|> range(start: 1970-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z)\
         \n|> filter(fn: (r) => r._measurement == \"{INSTALLATION}\" and r._field == \"{RECORD}\")\
         \n|> keep(columns: [\"id\", \"_time\", \"_value\"])",
        text(bucket),
    )
}

/// The least query that needs the bucket, the token's permission to read it and the query engine.
pub(super) fn probe(bucket: &str, range: Range) -> String {
    format!(
        "{})\n|> limit(n: 1)\n|> keep(columns: [\"_time\"])",
        from_pairs(bucket, range)
    )
}

/// Of which type the points are that a query is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Types {
    /// Of ours: a text for a user, a number of users.
    Ours,
    /// Of any.
    Any,
}

/// Whether there is a point of `measurement` with our field, as any rows.
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
        text(bucket),
        range.as_flux(),
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
        assert_eq!(text(r#"a"b\c"#), r#""a\x22b\x5cc""#);
        assert_eq!(text(r"${x} $\{"), r#""\x24\x7bx\x7d \x24\x5c\x7b""#);
        assert_eq!(text("\u{1}é=,'\u{7f}"), "\"\\x01é=,'\\x7f\"");
    }
}
