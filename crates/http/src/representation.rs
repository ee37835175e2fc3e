//! The representation of a response: JSON, or CSV if the request prefers it (RFC 9110, section 12.5.1).

use warp::http::StatusCode;
use warp::http::header::{ACCEPT, HeaderMap};

use super::problem::Problem;

/// The representation of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Representation {
    /// `application/json`, the default.
    #[default]
    Json,
    /// `text/csv`.
    Csv,
}

/// The best quality, in thousandths.
const BEST: u16 = 1000;

impl Representation {
    /// The representation that `Accept` prefers, and JSON if it prefers neither. 406 if it excludes both. A range that is
    /// malformed is ignored.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let (mut json, mut csv) = (Quality::default(), Quality::default());
        let mut is_limited = false;
        for value in headers.get_all(ACCEPT) {
            let value = value.to_str().unwrap_or("?");
            for range in unquoted(value, ',').map(str::trim) {
                is_limited |= !range.is_empty();
                json.apply(Self::Json, range);
                csv.apply(Self::Csv, range);
            }
        }
        match (json.value, csv.value) {
            _ if !is_limited => Ok(Self::Json),
            (0, 0) => Err(not_acceptable()),
            (json, csv) if csv > json => Ok(Self::Csv),
            _ => Ok(Self::Json),
        }
    }

    /// The content type of the response.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
        }
    }

    /// Whether the parameter of a range allows this representation. Unknown parameters do.
    fn fits(self, name: &str, value: &str) -> bool {
        let is = |text: &str| value.eq_ignore_ascii_case(text);
        match (self, name.to_ascii_lowercase().as_str()) {
            (_, "charset") => is("utf-8") || is("utf8"),
            (Self::Csv, "header") => is("present"),
            _ => true,
        }
    }
}

/// How much a client wants a representation, by the most specific range that names it.
#[derive(Default)]
struct Quality {
    specificity: u8,
    value: u16,
}

impl Quality {
    fn apply(&mut self, representation: Representation, range: &str) {
        let Some((specificity, value)) = matched(representation, range) else {
            return;
        };
        match specificity.cmp(&self.specificity) {
            std::cmp::Ordering::Greater => *self = Self { specificity, value },
            std::cmp::Ordering::Equal => self.value = self.value.max(value),
            std::cmp::Ordering::Less => {}
        }
    }
}

/// The specificity and the quality of `range`, if it matches the representation.
fn matched(representation: Representation, range: &str) -> Option<(u8, u16)> {
    let mut parts = unquoted(range, ';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let (own_kind, own_subtype) = representation.media_type();
    let mut specificity = match (kind, subtype) {
        ("*", "*") => 1,
        (kind, "*") if kind.eq_ignore_ascii_case(own_kind) => 2,
        (kind, subtype)
            if kind.eq_ignore_ascii_case(own_kind) && subtype.eq_ignore_ascii_case(own_subtype) =>
        {
            3
        }
        _ => return None,
    };
    let mut quality = BEST;
    for parameter in parts.filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=')?;
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        if name.eq_ignore_ascii_case("q") {
            quality = thousandths(value)?;
        } else if representation.fits(name, value) {
            specificity += 1;
        } else {
            return None;
        }
    }
    Some((specificity, quality))
}

/// The parts of `text` between separators that are not in quotes.
pub(super) fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |letter| {
        let was_escaped = std::mem::replace(&mut is_escaped, is_quoted && letter == '\\');
        is_escaped &= !was_escaped;
        if letter == '"' && !was_escaped {
            is_quoted = !is_quoted;
        }
        letter == separator && !is_quoted
    })
}

/// A quality from 0 to 1 with at most three decimals, in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    match (whole, decimals) {
        ("0", decimals) => Some(decimals),
        ("1", 0) => Some(BEST),
        _ => None,
    }
}

fn not_acceptable() -> Problem {
    Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        "not_acceptable",
        "this is returned as application/json or text/csv, and the Accept header allows neither",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Representation> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        let problem = |problem: Problem| assert_eq!(problem.summary(), (406, "not_acceptable"));
        Representation::of(&headers).map_err(problem).ok()
    }

    #[test]
    fn json_unless_csv_is_preferred() {
        for values in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/json"],
            &["Application/JSON; charset=UTF-8"],
            &["application/*"],
            &["application/json, text/csv"],
            &["text/csv;q=0.9, */*"],
            &["text/csv;q=0.9", "application/json;q=0.901"],
            &["text/csv;q=0, */*;q=0.001"],
            &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
            &["text/csv; charset=latin1, */*;q=0.1"],
            &["text/csv; header=absent, application/json;q=0.1"],
            // The charset makes a range more specific, and its quality counts.
            &["text/csv, text/csv;charset=utf-8;q=0.1, application/json;q=0.5"],
            &["application/json; profile=\"a,b;q=0\""],
            &["application/json; profile=\"a\\\",text/csv;q=0\""],
        ] {
            assert_eq!(of(values), Some(Representation::Json), "{values:?}");
        }
    }

    #[test]
    fn csv_if_it_is_preferred() {
        for values in [
            &["text/csv"][..],
            &["TEXT/CSV;header=present"],
            &["text/csv; charset=\"utf-8\""],
            &["text/*"],
            &["text/csv, */*;q=0.1"],
            &["application/json;q=0.5, text/csv;q=0.6"],
            &["application/json;q=0, */*"],
            &["application/json;q=0.5", "text/csv"],
            &["text/html, text/csv;q=0.001"],
            &["application/json;q=2, text/csv;q=0.1"],
        ] {
            assert_eq!(of(values), Some(Representation::Csv), "{values:?}");
        }
    }

    #[test]
    fn neither_is_a_problem() {
        for values in [
            &["text/html"][..],
            &["json"],
            &["*/csv"],
            &["*/*;q=0"],
            &["text/csv;q=0, application/json;q=0.000"],
            &["application/json;q=1.1"],
            &["application/json;q=0.0001"],
            &["application/json;q="],
            &["application/json;q=-1"],
            &["application/json;q=1e0"],
            &["application/problem+json"],
            &["application/json;charset=utf-16"],
        ] {
            assert_eq!(of(values), None, "{values:?}");
        }
    }
}
