//! Query parameters: values are validated, unknown parameters are refused.

use std::time::Duration;

use humantime_serde::re::humantime;
use jiff::SignedDuration;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use warp::{Filter, Rejection};

use super::parse::{self, parse_instant};
use super::problem::Problem;
use domain::text::nearest;
use domain::{Expression, Floor, InvalidWindow, Segment, TimeFrame, Timestamp, Window};
use engine::Headcount;

/// The decoded query parameters of a request, in order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

/// The query of a request. A request without a query has an empty one.
pub(super) fn query() -> impl Filter<Extract = (Query,), Error = Rejection> + Copy {
    warp::query::<Vec<(String, String)>>().map(Query)
}

/// The length of a time range without `from`.
const DEFAULT_LENGTH: SignedDuration = SignedDuration::from_hours(24);
/// Below this similarity, two names share little more than a word: not a useful suggestion.
const ALIKE: f64 = 0.7;

/// Refuses a query (without its question mark) that has a parameter that is not `known`.
pub(super) fn check(known: &[&'static str], query: Option<&str>) -> Result<(), Problem> {
    for (name, _) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if !known.contains(&&*name) {
            return Err(Problem::unknown_parameter(
                &name,
                known,
                nearest(&name, known.iter().copied(), ALIKE),
            ));
        }
    }
    Ok(())
}

impl FromIterator<(String, String)> for Query {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(parameters: I) -> Self {
        Self(parameters.into_iter().collect())
    }
}

impl Query {
    /// The value of `name`. A parameter given twice is an error, because either choice may be wrong.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        let first = values.next().map(|(_, value)| value.as_str());
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Problem::invalid_parameter(name, "is given twice")),
        }
    }

    /// Whether `name` is true. A parameter without a value counts as true.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name)? {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(_) => Err(Problem::invalid_parameter(name, "must be true or false")),
        }
    }

    /// A number from 1 to `maximum`.
    pub(super) fn limit(
        &self,
        name: &str,
        maximum: usize,
        default: usize,
    ) -> Result<usize, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(default);
        };
        let number = text.parse().ok();
        number
            .filter(|number| (1..=maximum).contains(number))
            .ok_or_else(|| Problem::invalid_parameter(name, format!("must be from 1 to {maximum}")))
    }

    /// A number without a maximum.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let wrong = || Problem::invalid_parameter(name, "must be a whole number, 0 or more");
        text.parse().map(Some).map_err(|_| wrong())
    }

    /// The privacy floor of the response: the configured one, or `min_users` if that is higher.
    pub(super) fn floor(&self, configured: Floor) -> Result<Floor, Problem> {
        let asked = self.number("min_users")?.unwrap_or(0);
        Ok(configured.max(Floor::of(asked)))
    }

    /// The window of a count of `segment`; by default its own. With a floor it is one of those that are known in advance.
    pub(super) fn window_of_count(
        &self,
        app: &Headcount,
        segment: &Segment,
    ) -> Result<Window, Problem> {
        let own = app.counts().window_of(segment);
        let given = self.given_window(app.frame())?;
        match given.filter(|given| *given != own) {
            Some(given) => is_known(app, given),
            None => Ok(own),
        }
    }

    /// The window of counts of many segments, if the query has one. With a floor it is one of those that are known in
    /// advance.
    pub(super) fn window_of_counts(&self, app: &Headcount) -> Result<Option<Window>, Problem> {
        let given = self.given_window(app.frame())?;
        given.map(|given| is_known(app, given)).transpose()
    }

    /// The window of a request about sets of users: with a floor, only the configured one.
    pub(super) fn window_of_sets(
        &self,
        frame: &TimeFrame,
        floor: Floor,
    ) -> Result<Window, Problem> {
        let window = self.window(frame)?;
        if floor.is_on() && window != frame.full_window() {
            let detail = format!(
                "with min_users, sets of users are counted over the configured window only, {} s: two windows may differ by \
                 fewer users",
                frame.full_window().seconds()
            );
            return Err(Problem::bad_request("invalid_window", detail));
        }
        Ok(window)
    }

    /// An instant in RFC 3339 or unix seconds.
    pub(super) fn instant(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        // A plus sign that was not percent-encoded is decoded as a space.
        let at = parse_instant(text).or_else(|| parse_instant(&text.replace(' ', "+")));
        let wrong = || Problem::invalid_parameter(name, parse::bad_instant(text));
        at.map(Some).ok_or_else(wrong)
    }

    /// The time from `from` to `to`: by default the day until `now`.
    pub(super) fn time_range(&self, now: Timestamp) -> Result<(Timestamp, Timestamp), Problem> {
        let to = self.instant("to")?.unwrap_or(now);
        let day_before = || to.checked_sub(DEFAULT_LENGTH).unwrap_or(Timestamp::MIN);
        let from = self.instant("from")?.unwrap_or_else(day_before);
        match from > to {
            true => Err(Problem::invalid_parameter("from", "must not be after to")),
            false => Ok((from, to)),
        }
    }

    /// An instant, or a day, which stands for its start in UTC.
    pub(super) fn day_or_instant(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let day = self.text(name)?.filter(|text| text.len() == 10);
        let start = |day: &str| {
            let day: Date = day.parse().ok()?;
            TimeZone::UTC.to_timestamp(day.into()).ok()
        };
        match day.and_then(start) {
            Some(start) => Ok(Some(start)),
            None => self.instant(name),
        }
    }

    /// A duration of at least a second.
    pub(super) fn step(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let step = duration(text).filter(|step| *step >= Duration::from_secs(1));
        let wrong = || Problem::invalid_parameter(name, "must be a duration like 1h, at least 1s");
        step.map(Some).ok_or_else(wrong)
    }

    /// A segment.
    pub(super) fn segment(&self, name: &str) -> Result<Option<Segment>, Problem> {
        let text = self.text(name)?;
        Ok(text.map(Segment::new).transpose()?)
    }

    /// A set expression.
    pub(super) fn expression(&self, name: &str) -> Result<Expression, Problem> {
        let Some(text) = self.text(name)? else {
            let detail = "is missing: write a set of segments, such as `news AND sports`, or * for everybody";
            return Err(Problem::invalid_parameter(name, detail));
        };
        Expression::parse(text).map_err(|error| {
            Problem::bad_request("invalid_expression", error.to_string())
                .member("position", error.position)
        })
    }

    /// All values of `name`, which may be repeated.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let given = self.0.iter().filter(move |(key, _)| key == name);
        given.map(|(_, value)| value.as_str())
    }

    /// Segments: the parameter may be repeated, up to `maximum` times.
    pub(super) fn segments(&self, name: &str, maximum: usize) -> Result<Vec<Segment>, Problem> {
        let segments = self.all(name).map(Segment::new);
        let segments = segments.collect::<Result<Vec<_>, _>>()?;
        match segments.len() <= maximum {
            true => Ok(segments),
            false => Err(Problem::invalid_parameter(
                name,
                format!("may be given at most {maximum} times"),
            )),
        }
    }

    /// The query with another value of `name`, without a question mark.
    pub(super) fn with(&self, name: &str, value: &str) -> String {
        let others = self.0.iter().filter(|(key, _)| key != name);
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(others)
            .append_pair(name, value)
            .finish()
    }

    /// Parses a query without its question mark.
    pub(super) fn parse(query: &str) -> Self {
        Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    #[cfg(test)]
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self(pairs.iter().map(owned).collect())
    }

    /// The window of a count; by default the configured window.
    pub(super) fn window(&self, frame: &TimeFrame) -> Result<Window, Problem> {
        let given = self.given_window(frame)?;
        Ok(given.unwrap_or_else(|| frame.full_window()))
    }

    /// The window of a count, if the query has one.
    pub(super) fn given_window(&self, frame: &TimeFrame) -> Result<Option<Window>, Problem> {
        let Some(text) = self.text("window")? else {
            return Ok(None);
        };
        let window = frame.window(window_length(text)?);
        let invalid =
            |error: InvalidWindow| Problem::bad_request("invalid_window", error.to_string());
        window.map(Some).map_err(invalid)
    }
}

/// Refuses a window that a floor does not allow.
fn is_known(app: &Headcount, window: Window) -> Result<Window, Problem> {
    let Some(windows) = app.counts().windows() else {
        return Ok(window);
    };
    if windows.contains(&window) {
        return Ok(window);
    }
    let known = windows
        .iter()
        .map(|window| format!("{} s", window.seconds()));
    let known = known.collect::<Vec<_>>().join(", ");
    let detail = format!(
        "with the setting min_users, the windows are {known} (setting refresh_windows), because other windows may differ by fewer users"
    );
    Err(Problem::bad_request("invalid_window", detail))
}

/// Parses the length of a window.
pub(super) fn window_length(text: &str) -> Result<Duration, Problem> {
    duration(text).ok_or_else(|| {
        let detail = "window must be a duration like 7d or 90m";
        Problem::bad_request("invalid_window", detail)
    })
}

/// Parses a duration such as `1d 6h`. A bare number is in seconds, as in `window_seconds`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    humantime::parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Query {
        Query::of(pairs)
    }

    fn frame() -> TimeFrame {
        let minute = Duration::from_secs(60);
        TimeFrame::new(Duration::from_secs(1_209_600), minute, minute).unwrap()
    }

    #[test]
    fn windows() {
        let seconds = |text| {
            of(&[("window", text)])
                .window(&frame())
                .map(Window::seconds)
        };
        for (text, expected) in [
            ("7d", 604_800),
            ("90m", 5_400),
            ("1h 30m", 5_400),
            ("60", 60),
        ] {
            assert_eq!(seconds(text).unwrap(), expected);
        }
        assert_eq!(of(&[]).window(&frame()).unwrap(), frame().full_window());
        assert_eq!(of(&[]).given_window(&frame()).unwrap(), None);
        for bad in [
            "",
            "0",
            "90s",
            "15d",
            "-1h",
            "7",
            "week",
            "1e9",
            "99999999999999999999",
            "é",
        ] {
            assert_eq!(
                seconds(bad).unwrap_err().summary(),
                (400, "invalid_window"),
                "{bad}"
            );
        }
    }

    #[test]
    fn values_that_can_not_be_used_are_named() {
        let bad = (400, "invalid_parameter");
        let query = of(&[
            ("a", "maybe"),
            ("b", "1"),
            ("b", "1"),
            ("c", "0"),
            ("d", "-1"),
        ]);
        assert_eq!(query.flag("a").unwrap_err().summary(), bad);
        assert_eq!(query.flag("b").unwrap_err().summary(), bad);
        assert_eq!(query.limit("c", 10, 5).unwrap_err().summary(), bad);
        assert_eq!(query.limit("d", 10, 5).unwrap_err().summary(), bad);
        assert_eq!(query.instant("a").unwrap_err().summary(), bad);
        assert_eq!(query.step("c").unwrap_err().summary(), bad);
        assert_eq!(query.limit("missing", 10, 5).unwrap(), 5);
    }

    #[test]
    fn parameters_that_a_resource_does_not_take_are_refused() {
        let checked = |known: &[&'static str], query| {
            check(known, query).map_err(|problem| problem.summary())
        };
        for (route, query) in [
            (&["window", "fresh", "segment"][..], None),
            (&["window", "fresh", "segment"], Some("")),
            (&["window", "fresh", "segment"], Some("window=7d&fresh")),
            (&["window", "fresh", "segment"], Some("%77indow=7d")),
            (&["prefix", "window"], Some("window=7d&window=7d")),
            (&["v"], Some("v=1")),
        ] {
            assert_eq!(checked(route, query), Ok(()), "{query:?}");
        }
        for (route, query) in [
            (&["window", "fresh", "segment"][..], "windw=7d"),
            (&["window", "fresh", "segment"], "window=7d&prefix=a"),
            (&["window", "fresh", "segment"], "Window=7d"),
            (&["window", "fresh", "segment"], "=7d"),
            (&[], "x"),
            (&[], "%ff=1"),
        ] {
            let refused = checked(route, Some(query));
            assert_eq!(refused, Err((400, "unknown_parameter")), "{query}");
        }
    }

    #[test]
    fn an_offset_survives_a_plus_that_was_not_encoded() {
        let query = of(&[("from", "2026-11-21T14:00:00 02:00")]);
        let noon = Timestamp::from_second(1_795_262_400).unwrap();
        assert_eq!(query.instant("from").unwrap(), Some(noon));
    }
}
