//! Hints at the likely mistake in an item that is refused, or that is accepted with another meaning than intended.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::de::IgnoredAny;

use super::instant::parse_rfc3339;

/// Names of user ids in other programs, in the form of [`plain_name`].
pub const USERS: &[&str] = &[
    "userid",
    "user",
    "uid",
    "id",
    "userids",
    "users",
    "customerid",
    "customer",
    "visitorid",
    "visitor",
    "memberid",
    "accountid",
    "clientid",
    "profileid",
    "distinctid",
    "anonymousid",
];
/// Names of segments in other programs, in the form of [`plain_name`].
pub const SEGMENTS: &[&str] = &[
    "segment",
    "segmentid",
    "segmentname",
    "segmentkey",
    "segments",
    "seg",
    "audience",
    "audienceid",
    "cohort",
    "cohortid",
    "group",
    "groupid",
    "tag",
    "category",
];
/// Names of the time at which a user was seen, in the form of [`plain_name`].
pub const TIMES: &[&str] = &[
    "at",
    "timestamp",
    "time",
    "ts",
    "datetime",
    "date",
    "seenat",
    "seen",
    "lastseen",
    "lastseenat",
    "eventtime",
    "eventtimestamp",
    "eventat",
    "occurredat",
    "visitedat",
    "createdat",
];

/// A name in lower case and without separators: `lastSeen`, `last_seen` and `Last-Seen` are the same name.
pub fn plain_name(name: &str) -> String {
    let kept = name.chars().filter(|c| !matches!(c, '_' | '-' | ' ' | '.'));
    kept.flat_map(char::to_lowercase).collect()
}

/// The message for the missing field `user_id` of the object in `text`.
pub(super) fn missing_user(text: &str) -> String {
    missing("user_id", USERS, text)
}

/// The message for the missing field `segment` of the object in `text`.
pub(super) fn missing_segment(text: &str) -> String {
    match field_like(SEGMENTS, "segment", text).as_deref() {
        Some("segments") => {
            "segment is missing; instead of `segments` send an item with `segment` for each of them"
                .to_owned()
        }
        _ => missing("segment", SEGMENTS, text),
    }
}

fn missing(field: &str, names: &[&str], text: &str) -> String {
    match field_like(names, field, text) {
        Some(name) => format!("{field} is missing: rename `{name}` to `{field}`"),
        None => format!("{field} is missing"),
    }
}

/// The field of the object in `text` that has the time under another name than `at`.
pub(super) fn other_time(text: &str) -> Option<String> {
    field_like(TIMES, "at", text)
}

/// The first field whose plain name is in `names`, other than `field` itself. The result has only such a name, so it never
/// quotes a user id.
fn field_like(names: &[&str], field: &str, text: &str) -> Option<String> {
    let fields: BTreeMap<Cow<'_, str>, IgnoredAny> = serde_json::from_str(text).ok()?;
    let is_like = |name: &str| name != field && names.contains(&&*plain_name(name));
    fields
        .into_keys()
        .find(|name| is_like(name))
        .map(Cow::into_owned)
}

/// The unit of the number `raw`, if it is a recent unix time in a finer unit than seconds.
pub fn finer_unit(raw: &str) -> Option<&'static str> {
    // From 1990 to 2286 unix seconds have 9 or 10 digits, and each finer unit has three more.
    let whole = raw.split(['.', 'e', 'E']).next()?;
    if raw.contains(['e', 'E']) || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match whole.trim_start_matches('0').len() {
        12 | 13 => Some("milliseconds"),
        15 | 16 => Some("microseconds"),
        18 | 19 => Some("nanoseconds"),
        _ => None,
    }
}

/// The message for `text`, which is not an instant.
pub(crate) fn bad_instant(text: &str) -> &'static str {
    let text = text.trim();
    let ends = |zone: &str| text.len() > zone.len() && text.to_ascii_uppercase().ends_with(zone);
    if text.is_empty() {
        "is empty: omit it if the user was seen now"
    } else if text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && text.parse::<f64>().is_ok()
    {
        "is a number in quotes: send unix seconds as a number, without quotes"
    } else if text.parse::<Date>().is_ok() && !text.contains(':') {
        "is a date without a time: send one such as 2026-11-21T00:00:00Z"
    } else if parse_rfc3339(&format!("{text}Z")).is_some() {
        "has no time zone: append Z for UTC, or an offset such as +02:00"
    } else if ends("UTC") || ends("GMT") {
        "names its time zone: write Z for UTC, as in 2026-11-21T08:00:00Z"
    } else {
        "must be RFC 3339, such as 2026-11-21T08:00:00Z, or unix seconds as a number"
    }
}

/// Whether `raw`, a JSON string, has a lone surrogate, which UTF-8 can't represent.
pub(super) fn has_lone_surrogate(raw: &str) -> bool {
    raw.starts_with('"') && serde_json::from_str::<String>(raw).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_by_their_digits() {
        for (raw, unit) in [
            ("1795262400", None),
            ("1795262400.5", None),
            ("1795262400123", Some("milliseconds")),
            ("1795262400123.5", Some("milliseconds")),
            ("1795262400123456", Some("microseconds")),
            ("1795262400123456789", Some("nanoseconds")),
            ("1e400", None),
            ("-1795262400123", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(finer_unit(raw), unit, "{raw}");
        }
    }

    #[test]
    fn names_are_alike_however_they_are_written() {
        for name in [
            "lastSeen",
            "last_seen",
            "Last-Seen",
            "LAST SEEN",
            "last.seen",
        ] {
            assert_eq!(plain_name(name), "lastseen");
        }
    }
}
