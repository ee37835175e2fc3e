//! The range of time and the window that a page shows. They are query parameters, and all links between pages keep them.

use std::ops::Range;
use std::time::Duration;

use humantime_serde::re::humantime;

use super::words::length;
use crate::path;
use crate::problem::Problem;
use crate::query::Query;
use domain::text::duration_text;
use domain::{TimeFrame, Timestamp, Window};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// The ranges of time: the name in addresses, and the length in seconds.
const RANGES: [(&str, u64); 6] = [
    ("1h", HOUR),
    ("1d", DAY),
    ("7d", 7 * DAY),
    ("14d", 14 * DAY),
    ("30d", 30 * DAY),
    ("90d", 90 * DAY),
];
/// The default range.
const USUAL: (&str, u64) = ("7d", 7 * DAY);
/// The windows that a page offers, in seconds, besides the configured one.
const WINDOWS: [u64; 5] = [HOUR, DAY, 3 * DAY, 7 * DAY, 14 * DAY];

/// The range of time and the window of a page.
#[derive(Debug, Clone)]
pub(super) struct Period {
    /// The name of the range; `None` if it is from one instant to another.
    range: Option<&'static str>,
    /// The range in unix seconds.
    pub(super) span: Range<i64>,
    /// Whether the range ends now.
    pub(super) ends_now: bool,
    pub(super) window: Window,
    /// The window as the reader wrote it, also if it is invalid.
    pub(super) typed: String,
    /// Why the window is invalid. The configured window is used instead.
    pub(super) trouble: Option<String>,
    /// The only windows, if there are only some.
    known: Option<Vec<Window>>,
    /// The window without the parameter.
    usual: Window,
    frame: TimeFrame,
}

/// An entry of a picker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// `7d`.
    pub(super) short: String,
    /// `7 days`.
    pub(super) title: String,
    pub(super) link: String,
    pub(super) current: bool,
}

impl Period {
    /// Parses the query. An unknown range is ignored, and no range ends later than now. `known` are the only windows besides
    /// `usual`, if there are only some.
    pub(super) fn of(
        query: &Query,
        frame: &TimeFrame,
        usual: Window,
        known: Option<&[Window]>,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let now = now.as_second();
        let typed = query.text("window")?.unwrap_or("").trim().to_owned();
        let (window, trouble) = match typed.is_empty() {
            true => (usual, None),
            false => match window(frame, usual, known, &typed) {
                Ok(window) => (window, None),
                Err(words) => (usual, Some(words)),
            },
        };
        let to = instant(query.text("to")?).map_or(now, |to| to.min(now));
        let from = instant(query.text("from")?).filter(|from| *from < to);
        let name = query.text("range")?.unwrap_or(USUAL.0);
        let (range, seconds) = RANGES
            .into_iter()
            .find(|range| range.0 == name)
            .unwrap_or(USUAL);
        let seconds = i64::try_from(seconds).unwrap_or(0);
        let typed = match typed.is_empty() {
            true => duration_text(window.seconds()),
            false => typed,
        };
        Ok(Self {
            range: from.is_none().then_some(range),
            span: from.map_or(now - seconds..now, |from| from..to),
            ends_now: from.is_none() || to >= now,
            window,
            typed,
            trouble,
            known: known.map(<[Window]>::to_vec),
            usual,
            frame: *frame,
        })
    }

    /// The length of the range in seconds.
    pub(super) fn seconds(&self) -> u64 {
        self.span.end.abs_diff(self.span.start)
    }

    /// `7 days`.
    pub(super) fn range_words(&self) -> String {
        length(self.seconds())
    }

    /// `7 days before`, `hour before`.
    pub(super) fn before_words(&self) -> String {
        let range = self.range_words();
        let range = range.strip_prefix("1 ").unwrap_or(&range);
        format!("{range} before")
    }

    /// `14 days`.
    pub(super) fn window_words(&self) -> String {
        length(self.window.seconds())
    }

    pub(super) fn is_full_window(&self) -> bool {
        self.window == self.frame.full_window()
    }

    /// Whether it is the window that a request without the parameter is about.
    pub(super) fn is_usual_window(&self) -> bool {
        self.window == self.usual
    }

    /// The range of the same length before this one.
    pub(super) fn before(&self) -> Range<i64> {
        let length = self.span.end - self.span.start;
        self.span.start - length..self.span.start
    }

    /// `address` with the parameters of this period, without those that are the default.
    pub(super) fn link(&self, address: &str) -> String {
        self.with(address, self.range_parameters(), self.window)
    }

    /// `address`, which may be of a page with another usual window, with the parameters of this period.
    pub(super) fn link_of_window(&self, address: &str) -> String {
        let address = self.with(address, self.range_parameters(), self.usual);
        path::with(&address, &format!("window={}", self.window_text()))
    }

    /// The parameters of this period as hidden fields of a form: name and value.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = self.range_fields();
        fields.extend(self.window_field());
        fields
    }

    /// The field of the window, unless it is the usual one.
    pub(super) fn window_field(&self) -> Option<(&'static str, String)> {
        (!self.is_usual_window()).then(|| ("window", self.window_text()))
    }

    /// The fields of the range, unless it is the default.
    pub(super) fn range_fields(&self) -> Vec<(&'static str, String)> {
        match self.range {
            Some(name) if name == USUAL.0 => Vec::new(),
            Some(name) => vec![("range", name.to_owned())],
            None => vec![
                ("from", for_input(self.span.start)),
                ("to", for_input(self.span.end)),
            ],
        }
    }

    /// The value of a `datetime-local` input: begin and end.
    pub(super) fn inputs(&self) -> (String, String) {
        (for_input(self.span.start), for_input(self.span.end))
    }

    /// The picker of ranges, for the page at `address`.
    pub(super) fn ranges(&self, address: &str) -> Vec<Choice> {
        let choice = |(name, seconds): (&'static str, u64)| Choice {
            short: short(name),
            title: length(seconds),
            link: self.with(address, format!("range={name}"), self.window),
            current: self.range == Some(name),
        };
        RANGES.into_iter().map(choice).collect()
    }

    /// The picker of windows, for the page at `address`.
    pub(super) fn windows(&self, address: &str) -> Vec<Choice> {
        let full = self.frame.full_window();
        let usual = WINDOWS.into_iter();
        let usual =
            usual.filter_map(|seconds| self.frame.window(Duration::from_secs(seconds)).ok());
        let mut windows: Vec<Window> = match &self.known {
            Some(known) => known.iter().copied().chain([self.usual]).collect(),
            None => usual.chain([self.window, self.usual, full]).collect(),
        };
        windows.sort_unstable();
        windows.dedup();
        let choice = |window: Window| Choice {
            short: short(&duration_text(window.seconds())),
            title: length(window.seconds()),
            link: self.with(address, self.range_parameters(), window),
            current: window == self.window,
        };
        windows.into_iter().map(choice).collect()
    }

    fn window_text(&self) -> String {
        duration_text(self.window.seconds())
    }

    fn range_parameters(&self) -> String {
        let fields = self.range_fields();
        let pairs = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", path::encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    fn with(&self, address: &str, range: String, window: Window) -> String {
        let mut address = address.to_owned();
        if !range.is_empty() && range != format!("range={}", USUAL.0) {
            address = path::with(&address, &range);
        }
        if window != self.usual {
            let window = duration_text(window.seconds());
            address = path::with(&address, &format!("window={window}"));
        }
        address
    }
}

/// Parses the value of a `datetime-local` input as UTC.
fn instant(text: Option<&str>) -> Option<i64> {
    let text = text?;
    let seconds = if text.len() == 16 { ":00Z" } else { "Z" };
    let at: Timestamp = format!("{text}{seconds}").parse().ok()?;
    // From 1970, to the end of years with four digits.
    (0..=253_370_000_000)
        .contains(&at.as_second())
        .then_some(at.as_second())
}

fn for_input(seconds: i64) -> String {
    let at = Timestamp::from_second(seconds).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M").to_string()
}

/// The name of a range or a window: a day is `24h`.
fn short(name: &str) -> String {
    let name = if name == "1d" { "24h" } else { name };
    name.to_owned()
}

fn window(
    frame: &TimeFrame,
    usual: Window,
    known: Option<&[Window]>,
    text: &str,
) -> Result<Window, String> {
    let whole = text.bytes().all(|byte| byte.is_ascii_digit());
    let length = match whole {
        // As the API: a bare number is in seconds.
        true => text.parse().ok().map(Duration::from_secs),
        false => humantime::parse_duration(text).ok(),
    };
    let length = length.ok_or("write a window like 7d, 36h or 1d 6h")?;
    let window = frame.window(length).map_err(|_| {
        format!(
            "a window is a multiple of {}, up to {}",
            super::words::length(u64::from(frame.resolution().seconds())),
            super::words::length(frame.full_window().seconds())
        )
    })?;
    match known {
        Some(known) if window != usual && !known.contains(&window) => {
            let mut counted = known.to_vec();
            if !counted.contains(&usual) {
                counted.push(usual);
            }
            Err(format!(
                "with min_users, only windows of {} are counted here",
                lengths(&counted)
            ))
        }
        _ => Ok(window),
    }
}

/// `14 days, 24 hours`.
pub(super) fn lengths(windows: &[Window]) -> String {
    let lengths = windows.iter().map(|window| length(window.seconds()));
    lengths.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_262_400;

    fn period(query: &[(&str, &str)]) -> Period {
        let [window, minute] = [14 * 86_400, 60].map(Duration::from_secs);
        let frame = TimeFrame::new(window, minute, minute).unwrap();
        let now = Timestamp::from_second(NOON).unwrap();
        Period::of(&Query::of(query), &frame, frame.full_window(), None, now).unwrap()
    }

    #[test]
    fn with_a_floor_only_known_windows_are_offered() {
        let [full, day, minute] = [14 * 86_400, 86_400, 60].map(Duration::from_secs);
        let frame = TimeFrame::new(full, minute, minute).unwrap();
        let known = [frame.full_window(), frame.window(day).unwrap()];
        let of = |window| {
            let query = Query::of(&[("window", window)]);
            let now = Timestamp::UNIX_EPOCH;
            Period::of(&query, &frame, known[0], Some(&known), now).unwrap()
        };
        let offered = of("1d").windows("/");
        let offered: Vec<_> = offered.iter().map(|choice| choice.short.as_str()).collect();
        assert_eq!(offered, ["24h", "14d"]);
        let other = of("2d");
        assert!(other.is_full_window() && other.windows("/").len() == 2);
        let trouble = other.trouble.unwrap();
        assert!(trouble.contains("14 days, 24 hours"), "{trouble}");
    }

    #[test]
    fn a_segment_has_its_own_window_with_a_floor_too() {
        let [full, week, minute] = [14 * 86_400, 7 * 86_400, 60].map(Duration::from_secs);
        let frame = TimeFrame::new(full, minute, minute).unwrap();
        let own = frame.window(week).unwrap();
        for known in [None, Some(&[frame.full_window()][..])] {
            let of = |query: &[(&str, &str)]| {
                let now = Timestamp::from_second(NOON).unwrap();
                Period::of(&Query::of(query), &frame, own, known, now).unwrap()
            };
            for query in [&[][..], &[("window", "7d")], &[("window", " ")]] {
                let period = of(query);
                assert_eq!((period.window, &period.trouble), (own, &None));
                assert!(period.is_usual_window() && !period.is_full_window());
                assert_eq!(period.link("/a"), "/a");
                assert_eq!(period.link_of_window("/a?b=c"), "/a?b=c&window=7d");
            }
            let full = of(&[("window", "14d"), ("range", "1d")]);
            assert!(full.is_full_window() && !full.is_usual_window());
            assert_eq!(full.link_of_window("/a"), "/a?range=1d&window=14d");
        }
        let known = [frame.full_window()];
        let query = Query::of(&[("window", "1d")]);
        let day = Period::of(&query, &frame, own, Some(&known), Timestamp::UNIX_EPOCH).unwrap();
        assert!(day.trouble.unwrap().contains("14 days, 7 days"));
    }

    #[test]
    fn only_a_day_is_named_in_hours() {
        for (window, name) in [("1d", "24h"), ("11d", "11d"), ("36h", "36h")] {
            let windows = period(&[("window", window)]).windows("/");
            let current = windows.iter().find(|choice| choice.current).unwrap();
            assert_eq!(current.short, name);
        }
    }

    #[test]
    fn the_range_before_is_named() {
        let words = |range| period(&[("range", range)]).before_words();
        let named = ["1h", "1d", "14d"].map(words);
        assert_eq!(named, ["hour before", "24 hours before", "14 days before"]);
    }

    #[test]
    fn no_range_ends_in_the_future() {
        let begun = period(&[("from", "2026-11-21T11:00"), ("to", "2026-11-22T12:00")]);
        assert_eq!(begun.span, NOON - 3_600..NOON);
        assert!(begun.ends_now);
        let later = period(&[("from", "2026-11-21T13:00"), ("to", "2026-11-22T12:00")]);
        assert_eq!(later.span, NOON - 7 * 86_400..NOON, "it is the usual one");
    }

    #[test]
    fn links_keep_what_is_not_the_default() {
        assert_eq!(period(&[]).link("/"), "/");
        let chosen = period(&[("range", "1d"), ("window", "36h")]);
        assert_eq!(chosen.link("/?q=a"), "/?q=a&range=1d&window=36h");
        let current: Vec<_> = chosen
            .windows("/")
            .into_iter()
            .filter(|choice| choice.current)
            .collect();
        assert_eq!(current[0].short, "36h");
        assert_eq!(current[0].link, "/?range=1d&window=36h");
        let ranges = chosen.ranges("/");
        assert!(ranges[1].current && ranges[1].title == "24 hours");
        assert_eq!(ranges[2].link, "/?window=36h");
        let own = period(&[("from", "2026-11-20T00:00"), ("to", "2026-11-21T00:00")]);
        assert_eq!(
            own.link("/"),
            "/?from=2026-11-20T00%3A00&to=2026-11-21T00%3A00"
        );
        assert!(!own.ends_now && own.before().end == own.span.start);
    }

    #[test]
    fn an_invalid_window_is_kept_with_its_reason() {
        for bad in ["1x", "90s", "15d", "-1"] {
            let period = period(&[("window", bad)]);
            assert_eq!(period.typed, bad);
            assert!(period.trouble.is_some() && period.is_full_window(), "{bad}");
        }
        assert_eq!(period(&[]).typed, "14d");
        assert_eq!(period(&[("window", "60")]).window.seconds(), 60);
    }

    #[test]
    fn instants_of_fields() {
        assert_eq!(for_input(NOON), "2026-11-21T12:00");
        assert_eq!(instant(Some(&for_input(NOON))), Some(NOON));
        assert_eq!(instant(Some("2026-11-21T12:00:00")), Some(NOON));
        for bad in ["", "now", "1969-01-01T00:00", "2026-11-21"] {
            assert_eq!(instant(Some(bad)), None, "{bad}");
        }
    }
}
