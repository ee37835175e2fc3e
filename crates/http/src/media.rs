//! The formats of bodies with pairs, and the content types of `POST /v1/pairs`.

use warp::http::header::{CONTENT_TYPE, HeaderMap};

use super::problem::Problem;
use crate::parse::cloud_events::Attributes;
use crate::parse::line_protocol::Precision;
use crate::parse::messages::Dialect;

/// The format of a body of pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Format {
    /// One object, or an array of them.
    Json,
    /// One object a line (NDJSON).
    Lines,
    /// InfluxDB's line protocol, with timestamps of this precision.
    LineProtocol(Precision),
    /// Messages of an analytics library.
    Messages(Dialect),
    /// The data of a CloudEvent with these attributes.
    EventData(Attributes),
    /// A CloudEvent in structured mode, or an array of them.
    Events,
}

impl Format {
    /// The format that `content-type` names. 415 for any other.
    ///
    /// The crate `mime` is not used: it refuses whitespace before a semicolon, empty parameters and escapes in quoted
    /// strings, which RFC 9110, sections 5.6.4 and 5.6.6, allows.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers.get(CONTENT_TYPE);
        let named = value.and_then(|value| value.to_str().ok()).unwrap_or("");
        let (essence, parameters) = named.split_once(';').unwrap_or((named, ""));
        let essence = essence.trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if !parameters.split(';').all(is_utf8) {
            return Err(Problem::unsupported("the charset must be utf-8"));
        }
        if is("application/cloudevents+json") || is("application/cloudevents-batch+json") {
            return Ok(Self::Events);
        }
        if is("application/json") {
            return Ok(Attributes::of(headers).map_or(Self::Json, Self::EventData));
        }
        if is("application/x-ndjson")
            || is("application/ndjson")
            || is("application/jsonl")
            || is("application/x-jsonlines")
        {
            return Ok(Self::Lines);
        }
        let found = if value.is_some() {
            "is not supported"
        } else {
            "is missing"
        };
        Err(Problem::unsupported(format!(
            "content-type {found}: give application/json for an object or an array, \
             application/x-ndjson for one object per line, or application/cloudevents+json"
        )))
    }
}

/// Whether a parameter is compatible with UTF-8. Parameters other than `charset` are ignored.
fn is_utf8(parameter: &str) -> bool {
    match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            ["utf-8", "utf8", "us-ascii"]
                .iter()
                .any(|known| value.eq_ignore_ascii_case(known))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Result<Format, (u16, &'static str)> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
        Format::of(&headers).map_err(|problem| problem.summary())
    }

    #[test]
    fn content_types() {
        for json in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;v=1",
            "application/json ; charset=utf-8 ; v=1",
            "application/json;\tcharset=US-ASCII;",
            "application/json;;CHARSET=utf8",
            r#"application/json; v="a\"b""#,
        ] {
            assert_eq!(of(json), Ok(Format::Json));
        }
        for lines in [
            "application/x-ndjson",
            "application/ndjson",
            "application/jsonl; charset=\"utf-8\"",
        ] {
            assert_eq!(of(lines), Ok(Format::Lines));
        }
        for events in [
            "application/cloudevents+json; charset=utf-8",
            "application/cloudevents-batch+json",
        ] {
            assert_eq!(of(events), Ok(Format::Events));
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonp",
            "application/json; charset=latin1",
            "application/json; charset=",
            "application/json; charset=\"latin1\"; v=1",
            "application/json; charset=utf-8; charset=latin1",
            "application/json, application/json",
            "application/ json",
            "json",
            "*/*",
        ] {
            assert_eq!(of(bad), Err((415, "unsupported_media_type")), "{bad}");
        }
        assert!(Format::of(&HeaderMap::new()).is_err());
    }
}
