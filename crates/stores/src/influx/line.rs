//! Line protocol: one line per pair, with a timestamp that distinguishes the users of a slot.

use std::borrow::Cow;
use std::io::Write;

use super::lines::Lines;
use domain::{
    Batch, Erasure, FingerprintKey, Resolution, Segment, Slot, TrendPoint, UserId, Window,
};
use index::{FINGERPRINT_BITS, Fingerprint};

/// The measurement of pairs.
pub(super) const PAIR: &str = "pair";
/// The string field of a pair.
pub(super) const USER: &str = "user";
/// The measurement of the markers: the slots of a segment in which points were overwritten.
pub(super) const ERASED: &str = "erased";
/// The measurement of erasures, which do not contain user ids.
pub(super) const USER_ERASED: &str = "user_erased";
/// The string field of an erasure.
pub(super) const MARK: &str = "mark";
/// The measurement of the trend.
pub(super) const TREND: &str = "segment_users";
/// The measurement of the installation's records.
pub(super) const INSTALLATION: &str = "installation";
/// The string field of an installation's record.
pub(super) const RECORD: &str = "record";
/// The measurement of the installation's properties.
pub(super) const PROPERTY: &str = "property";
/// The string field of a property.
pub(super) const DOCUMENT: &str = "document";
/// The integer field of a trend point.
pub(super) const USERS: &str = "users";

/// The field value that overwrites an erased user. A user id can't contain a control character.
pub(super) const SENTINEL: &str = "\u{1}erased";

/// The prefix of a tag whose backslashes were replaced. A segment can't contain a control character.
const REPLACED: char = '\u{1}';
/// The replacement of a backslash in such a tag.
const BACKSLASH: char = '\u{2}';

/// The lines of a batch, in bodies of at most `batch_pairs` lines. The iterator builds each body on demand.
pub(super) fn bodies(
    batch: &Batch,
    resolution: Resolution,
    batch_pairs: usize,
    key: FingerprintKey,
) -> impl Iterator<Item = Lines> {
    let heads: Vec<String> = batch.segments().iter().map(pair_head).collect();
    let batch_pairs = batch_pairs.max(1);
    let mut pairs = batch.indexed();
    std::iter::from_fn(move || {
        let some = pairs.len().min(batch_pairs);
        let mut body = Lines::with_capacity(some * 64);
        for (segment, user, slot) in pairs.by_ref().take(some) {
            let nanos = nanos(&user, slot, resolution, key);
            push_pair(&mut body, &heads[segment], user.as_str(), nanos);
        }
        (some > 0).then_some(body)
    })
}

/// Appends the line that overwrites the pair of `segment` at `nanos` with the sentinel.
pub(super) fn push_erased(lines: &mut Lines, segment: &Segment, nanos: i64) {
    push_pair(lines, &pair_head(segment), SENTINEL, nanos);
}

/// Appends the marker that `slot` of `segment` contains a sentinel.
pub(super) fn push_erased_mark(
    lines: &mut Lines,
    segment: &Segment,
    slot: Slot,
    resolution: Resolution,
) {
    let tag = tag_value(segment);
    let start = slot_start(slot, resolution);
    lines.push(|text| writeln!(text, "{ERASED},segment={tag} points=1i {start}"));
}

/// The line of an erasure. The tag, two digits of the hash, and random nanoseconds distinguish two erasures in one microsecond.
pub(super) fn erasure(erasure: &Erasure) -> Lines {
    let mark = erasure.mark();
    let mut lines = Lines::default();
    let part = erasure.hash() >> 120;
    let at = erasure.at().as_microsecond();
    let nanos = at.saturating_mul(1_000) + i64::from(fastrand::u16(0..1_000));
    lines.push(|text| {
        writeln!(
            text,
            "{USER_ERASED},part={part:02x} {MARK}=\"{mark}\" {nanos}"
        )
    });
    lines
}

/// The lines of trend points. A point of the same segment, window and second replaces the earlier one.
pub(super) fn trend(points: &[TrendPoint]) -> Lines {
    let mut lines = Lines::default();
    for point in points {
        let tag = tag_value(&point.segment);
        let window = window_tag(point.window);
        let users = point.count.users;
        let second = point.count.as_of.as_second();
        lines.push(|text| {
            writeln!(
                text,
                "{TREND},segment={tag},window={window} users={users}i {second}000000000"
            )
        });
    }
    lines
}

/// The line of an installation's record. Without `nanos`, the server assigns the timestamp.
pub(super) fn installation(id: &str, record: &str, nanos: Option<i64>) -> String {
    let record = record.replace('\\', "\\\\").replace('"', "\\\"");
    let nanos = nanos.map_or_else(String::new, |nanos| format!(" {nanos}"));
    format!("{INSTALLATION},id={id} {RECORD}=\"{record}\"{nanos}\n")
}

/// The line of a property. Its series is that of the bucket and the name, as hexadecimal digits.
pub(super) fn property(bucket: &str, name: &str, document: &str, nanos: i64) -> String {
    let digits =
        |text: &str| -> String { text.bytes().map(|byte| format!("{byte:02x}")).collect() };
    let id = format!("{}-{}", digits(bucket), digits(name));
    let document = document.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{PROPERTY},id={id} {DOCUMENT}=\"{document}\" {nanos}\n")
}

/// The tag value of a window: its length, as in `1209600s`.
pub(super) fn window_tag(window: Window) -> String {
    format!("{}s", window.seconds())
}

/// The timestamp of a pair: the start of its slot plus the user's fingerprint, scaled to the slot's nanoseconds.
///
/// Its tags and this timestamp identify a point. So the timestamp must differ between the users of a segment, and must
/// never change between versions, or a retry would write another point. Version 0.1.0 used a hash under a zero key,
/// modulo the slot's length. Its points differ from those of later versions, but have the same user ids, so counts are
/// the same.
pub(super) fn nanos(
    user: &UserId<'_>,
    slot: Slot,
    resolution: Resolution,
    key: FingerprintKey,
) -> i64 {
    let length = u64::from(resolution.seconds()) * 1_000_000_000;
    let fingerprint = Fingerprint::of(user, key).number();
    let offset = (u128::from(fingerprint) * u128::from(length)) >> FINGERPRINT_BITS;
    let offset = u64::try_from(offset).unwrap_or(0);
    slot_start(slot, resolution).saturating_add_unsigned(offset)
}

/// The slot of a pair's timestamp.
pub(super) fn slot_at(nanos: i64, resolution: Resolution) -> Slot {
    let length = u64::from(resolution.seconds()) * 1_000_000_000;
    Slot::new(u64::try_from(nanos).unwrap_or(0) / length)
}

fn slot_start(slot: Slot, resolution: Resolution) -> i64 {
    let seconds = slot
        .number()
        .saturating_mul(u64::from(resolution.seconds()));
    i64::try_from(seconds.saturating_mul(1_000_000_000)).unwrap_or(i64::MAX)
}

fn pair_head(segment: &Segment) -> String {
    format!("{PAIR},segment={} {USER}=\"", tag_value(segment))
}

fn push_pair(lines: &mut Lines, head: &str, user: &str, nanos: i64) {
    lines.push(|text| {
        text.extend_from_slice(head.as_bytes());
        push_field(text, user);
        writeln!(text, "\" {nanos}")
    });
}

/// The segment and the user in a pair's line, as [`push_pair`] writes it; `None` for any other line.
pub(super) fn pair_of(line: &[u8]) -> Option<(Segment, UserId<'static>)> {
    let line = std::str::from_utf8(line).ok()?;
    let tag = line.strip_prefix(PAIR)?.strip_prefix(",segment=")?;
    // The first unescaped space ends the tags. In lines of this program, no backslash precedes an escape.
    let mut before = '\0';
    let end = tag.find(|c: char| {
        let is_end = c == ' ' && before != '\\';
        before = c;
        is_end
    })?;
    let field = tag[end + 1..].strip_prefix(USER)?.strip_prefix("=\"")?;
    let mut user = String::new();
    let mut chars = field.chars();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => user.push(chars.next()?),
            c => user.push(c),
        }
    }
    Some((
        segment_of_tag(&unescaped(&tag[..end]))?,
        UserId::new(user).ok()?,
    ))
}

/// The tag value in a line, without escapes.
fn unescaped(tag: &str) -> String {
    let mut value = String::with_capacity(tag.len());
    let mut chars = tag.chars().peekable();
    while let Some(c) = chars.next() {
        let is_escape = c == '\\' && chars.peek().is_some_and(|next| ", =".contains(*next));
        if !is_escape {
            value.push(c);
        }
    }
    value
}

/// Appends a string field's value. Only quotes and backslashes need an escape.
fn push_field(text: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        if matches!(byte, b'"' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
}

/// The stored tag of a segment: its name, except for names that line protocol can't represent.
///
/// Line protocol can't escape a backslash in a tag. In one of its two passes, the server's scanner reads `\\` before a
/// comma, a space or an equals sign as an escaped backslash, and the sign as a separator. If the name also contains a
/// quote, the line then swallows the lines next to it. Such a name is stored with its backslashes replaced.
pub(super) fn stored_tag(segment: &Segment) -> Cow<'_, str> {
    let name = segment.as_str();
    let breaks = ["\\,", "\\ ", "\\="];
    if !breaks.iter().any(|pair| name.contains(pair)) {
        return Cow::Borrowed(name);
    }
    let mut tag = String::with_capacity(name.len() + 1);
    tag.push(REPLACED);
    tag.extend(name.chars().map(|c| if c == '\\' { BACKSLASH } else { c }));
    Cow::Owned(tag)
}

/// The segment whose [`stored_tag`] this is; `None` for a tag that this program never writes.
pub(super) fn segment_of_tag(tag: &str) -> Option<Segment> {
    match tag.strip_prefix(REPLACED) {
        Some(rest) => Segment::new(&rest.replace(BACKSLASH, "\\")).ok(),
        None => Segment::new(tag).ok(),
    }
}

/// The escaped tag value for a line.
fn tag_value(segment: &Segment) -> String {
    let tag = stored_tag(segment);
    let mut escaped = String::with_capacity(tag.len() + 8);
    for c in tag.chars() {
        if matches!(c, ',' | ' ' | '=') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use domain::{BatchBuilder, Count, TimeFrame, Timestamp};

    fn frame() -> TimeFrame {
        TimeFrame::new(
            Duration::from_hours(336),
            Duration::from_secs(60),
            Duration::ZERO,
        )
        .unwrap()
    }

    fn user(name: &str) -> UserId<'_> {
        UserId::new(name).unwrap()
    }

    fn segment(name: &str) -> Segment {
        Segment::new(name).unwrap()
    }

    #[test]
    fn the_timestamp_of_a_pair_never_changes() {
        let resolution = frame().resolution();
        let key = FingerprintKey::new(*b"sixteen bytes ok");
        let stamp = |name| nanos(&user(name), Slot::new(29_000_000), resolution, key);
        // These numbers must never change: a retry of a stored pair would write another point.
        assert_eq!(stamp("u104010"), 1_740_000_040_379_993_131);
        assert_eq!(stamp("Юля"), 1_740_000_034_047_301_681);
        assert_eq!(slot_at(stamp("u104010"), resolution), Slot::new(29_000_000));
    }

    #[test]
    fn timestamps_stay_within_their_slot_and_differ() {
        let resolution = frame().resolution();
        let mut seen = std::collections::HashSet::new();
        for n in 0..20_000 {
            let name = format!("u{n}");
            let stamp = nanos(
                &user(&name),
                Slot::new(7),
                resolution,
                FingerprintKey::new([9; 16]),
            );
            assert_eq!(slot_at(stamp, resolution), Slot::new(7));
            assert!(seen.insert(stamp), "two of 20,000 users share a nanosecond");
        }
        let last = nanos(
            &user("u"),
            Slot::new(u64::MAX),
            resolution,
            FingerprintKey::new([9; 16]),
        );
        assert_eq!(last, i64::MAX);
    }

    #[test]
    fn lines_are_cut_into_bodies() {
        let mut builder = BatchBuilder::default();
        for n in 0..7 {
            builder
                .push_pair(&user(&format!("u{n}")), "s", Slot::new(1))
                .unwrap();
        }
        let batch = builder.finish();
        let key = FingerprintKey::new([9; 16]);
        let counts = bodies(&batch, frame().resolution(), 3, key).map(|body| body.count());
        assert_eq!(counts.collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(
            bodies(&Batch::default(), frame().resolution(), 3, key).count(),
            0
        );
    }

    #[test]
    fn escapes_what_line_protocol_can_carry() {
        let mut lines = Lines::default();
        push_pair(
            &mut lines,
            &pair_head(&segment(r#"a b,c=d"e\f"#)),
            r#"q"u\o te,=\"#,
            5,
        );
        assert_eq!(
            std::str::from_utf8(lines.as_bytes()).unwrap(),
            "pair,segment=a\\ b\\,c\\=d\"e\\f user=\"q\\\"u\\\\o te,=\\\\\" 5\n"
        );
    }

    #[test]
    fn a_backslash_before_a_separator_is_replaced_and_comes_back() {
        for name in [r"a\ b", r"a\,b", r"a\=b", r#"a\ b\="c"#, r"\\ \\,"] {
            let name = segment(name);
            assert!(!tag_value(&name).contains(r"\\"), "{name}");
            assert_eq!(segment_of_tag(&stored_tag(&name)).unwrap(), name);
        }
        for name in [r"back\slash\\es", "plain", "${x}"] {
            assert_eq!(stored_tag(&segment(name)), name);
        }
        assert_eq!(segment_of_tag("\u{3}x"), None);
    }

    #[test]
    fn a_trend_point_keeps_whole_seconds() {
        let point = TrendPoint {
            segment: segment("a b"),
            window: frame().full_window(),
            count: Count {
                users: 12,
                as_of: Timestamp::from_millisecond(1_700_000_000_900).unwrap(),
            },
        };
        assert_eq!(
            std::str::from_utf8(trend(&[point]).as_bytes()).unwrap(),
            "segment_users,segment=a\\ b,window=1209600s users=12i 1700000000000000000\n"
        );
    }
}
