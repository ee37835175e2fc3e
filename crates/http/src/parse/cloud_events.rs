//! CloudEvents 1.0: the subject of an event is the user, and its data is an object with the segment.
//!
//! In binary mode the attributes are headers, and the body is the data. In structured mode, and in a batch, an event is one object.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use warp::http::HeaderMap;

use super::instant::parse_rfc3339;
use super::scalar::Scalar;
use super::{BadBody, Push, Report, each_object, text_of};

/// The attributes of an event that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The user.
    subject: Option<String>,
    time: Option<String>,
}

/// An event in structured mode. Null is the same as missing.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    subject: Option<Scalar<'a>>,
    #[serde(borrow)]
    time: Option<Scalar<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Scalar<'a>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    segment: Option<Scalar<'a>>,
}

impl Attributes {
    /// The attributes of a request in binary mode; `None` if it is no event.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get("ce-specversion")?;
        let text = |name| {
            let value = headers.get(name)?.to_str().ok()?;
            // The HTTP binding encodes what a header can't have.
            let decoded = percent_decode_str(value).decode_utf8().ok()?;
            Some(decoded.into_owned())
        };
        Some(Self {
            subject: text("ce-subject"),
            time: text("ce-time"),
        })
    }
}

/// Parses the data of an event with these attributes, and pushes its pair.
///
/// # Errors
///
/// If the body is not JSON.
pub fn binary(
    body: &[u8],
    attributes: &Attributes,
    push: &mut impl Push,
) -> Result<Report, BadBody> {
    let data: &RawValue = serde_json::from_str(text_of(body)?)?;
    let mut report = Report::default();
    let (subject, time) = (attributes.subject.as_deref(), attributes.time.as_deref());
    take(subject, time.map(Some), data.get(), push, &mut report);
    Ok(report)
}

/// Parses an event or an array of events, and pushes their pairs.
///
/// # Errors
///
/// If the body is not JSON. Pairs that were pushed before must then be discarded.
pub fn structured(body: &[u8], push: &mut impl Push) -> Result<Report, BadBody> {
    let mut report = Report::default();
    each_object(text_of(body)?, |event| event_in(event, push, &mut report))?;
    Ok(report)
}

fn event_in(text: &str, push: &mut impl Push, report: &mut Report) {
    let event: Event = match serde_json::from_str(text) {
        Ok(event) => event,
        Err(error) => return report.reject("malformed", || format!("not an event: {error}")),
    };
    let subject = event.subject.as_ref().and_then(Scalar::text);
    let time = event.time.as_ref().map(Scalar::text);
    let data = match (event.data, &event.data_base64) {
        (Some(data), _) => Some(Cow::Borrowed(data.get())),
        (None, Some(encoded)) => {
            let bytes = encoded.text().map(|text| BASE64_STANDARD.decode(text));
            let bytes = bytes.and_then(Result::ok);
            bytes
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .map(Cow::Owned)
        }
        (None, None) => None,
    };
    take(subject, time, data.as_deref().unwrap_or("{}"), push, report);
}

/// `time` is `Some(None)` if it is no string.
fn take(
    subject: Option<&str>,
    time: Option<Option<&str>>,
    data: &str,
    push: &mut impl Push,
    report: &mut Report,
) {
    let Some(user) = subject else {
        return report.reject("invalid_user_id", || {
            "the event has no subject, which is the user".to_owned()
        });
    };
    let data: Data = match serde_json::from_str(data) {
        Ok(data) => data,
        Err(error) => {
            return report.reject("malformed", || {
                format!("the data is not an object such as {{\"segment\": \"sports\"}}: {error}")
            });
        }
    };
    let Some(segment) = data.segment.as_ref().and_then(Scalar::text) else {
        return report.reject("invalid_segment", || {
            "the data has no `segment`, or it is not a string".to_owned()
        });
    };
    let at = match time {
        None => None,
        Some(time) => match time.and_then(parse_rfc3339) {
            Some(at) => Some(at),
            None => {
                return report.reject("invalid_at", || {
                    "the time must be RFC 3339, such as 2026-11-21T08:00:00Z".to_owned()
                });
            }
        },
    };
    match push(user, segment, at) {
        Ok(()) => report.accept(),
        Err(error) => report.reject(error.code(), || error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;
    use serde_json::{Value, json};

    type Seen = (String, String, Option<String>);

    fn read(parse: impl FnOnce(&mut Pushed<'_>) -> Result<Report, BadBody>) -> (Vec<Seen>, Report) {
        let mut pairs = Vec::new();
        let mut push = |user: &str, segment: &str, at: Option<Timestamp>| {
            let at = at.map(|at| at.to_string());
            pairs.push((user.to_owned(), segment.to_owned(), at));
            Ok(())
        };
        let report = parse(&mut push).unwrap();
        (pairs, report)
    }

    type Pushed<'p> =
        dyn FnMut(&str, &str, Option<Timestamp>) -> Result<(), engine::ingest::PairError> + 'p;

    fn seen(user: &str, segment: &str, at: Option<&str>) -> Seen {
        (user.to_owned(), segment.to_owned(), at.map(str::to_owned))
    }

    #[test]
    fn structured_events_and_batches() {
        let event = json!({"id": "1", "specversion": "1.0", "type": "seen", "source": "uss",
            "subject": "u1", "time": "2026-11-21T10:00:00Z", "data": {"segment": "sports", "more": 1}});
        let parse =
            |body: Value| read(|mut push| structured(body.to_string().as_bytes(), &mut push));
        let (pairs, report) = parse(event.clone());
        let first = seen("u1", "sports", Some("2026-11-21T10:00:00Z"));
        assert_eq!((pairs, report.items), (vec![first.clone()], 1));
        let encoded = BASE64_STANDARD.encode("{\"segment\": \"news\"}");
        let (pairs, report) = parse(json!([
            event,
            {"subject": "u2", "data_base64": encoded},
            {"subject": "u3"},
            {"data": {"segment": "news"}},
            {"subject": "u4", "data": {"segment": "news"}, "time": 7},
            {"subject": "u5", "data": "news"},
            7,
        ]));
        assert_eq!(pairs, [first, seen("u2", "news", None)]);
        let codes: Vec<_> = report.errors.iter().map(|it| it.code).collect();
        let expected = [
            "invalid_segment",
            "invalid_user_id",
            "invalid_at",
            "malformed",
            "malformed",
        ];
        assert_eq!(codes, expected);
    }

    #[test]
    fn binary_events_have_their_attributes_in_headers() {
        let mut headers = HeaderMap::new();
        assert_eq!(Attributes::of(&headers), None);
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-subject", "J%C3%BCrgen"),
            ("ce-time", "2026-11-21T10:00:00Z"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let attributes = Attributes::of(&headers).unwrap();
        let (pairs, _) =
            read(|mut push| binary(b"{\"segment\": \"sports\"}", &attributes, &mut push));
        assert_eq!(
            pairs,
            [seen("Jürgen", "sports", Some("2026-11-21T10:00:00Z"))]
        );
        headers.remove("ce-subject");
        let attributes = Attributes::of(&headers).unwrap();
        let (pairs, report) =
            read(|mut push| binary(b"{\"segment\": \"a\"}", &attributes, &mut push));
        assert!(pairs.is_empty() && report.errors[0].code == "invalid_user_id");
    }
}
