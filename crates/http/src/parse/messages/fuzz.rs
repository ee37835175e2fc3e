//! Fuzz targets: messages of Segment's libraries, compared with their documentation.

use serde_json::{Map, Value, json};

use super::*;

const NAMES: [&str; 9] = [
    "type",
    "userId",
    "anonymousId",
    "previousId",
    "event",
    "name",
    "groupId",
    "timestamp",
    "properties",
];

/// What a member may be, by number.
fn value(number: u8) -> Option<Value> {
    Some(match number % 16 {
        0..=3 => return None,
        4 => Value::Null,
        5 => json!(""),
        6 => json!("identify"),
        7 => json!("alias"),
        8 => json!("a \"quoted\" \u{1f600}"),
        9 => json!(-17),
        10 => json!(1.5),
        11 => json!(["x"]),
        12 => json!({"segment": "sports", "more": [1, {"segment": 2}]}),
        13 => json!({"segment": null}),
        14 => json!("2026-11-21T10:00:00+02:00"),
        _ => json!(u64::MAX),
    })
}

/// The string or integer of a member, unless it is empty.
fn text(message: &Map<String, Value>, name: &str) -> Option<String> {
    match message.get(name)? {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

#[derive(Debug, Default, PartialEq)]
struct Expected {
    pairs: Vec<(String, String, Option<Timestamp>)>,
    codes: Vec<&'static str>,
    ignored: usize,
    merges: Vec<(String, String)>,
}

impl Expected {
    fn take(&mut self, message: &Map<String, Value>) {
        let properties = message.get("properties").filter(|it| !it.is_null());
        if properties.is_some_and(|it| !it.is_object() && !it.is_array()) {
            return self.codes.push("malformed");
        }
        // An array is the members of the struct in order.
        let segment = match properties {
            Some(Value::Array(_)) => Some("x".to_owned()),
            Some(properties) => properties.as_object().and_then(|it| text(it, "segment")),
            None => None,
        };
        let (user, anonymous) = (text(message, "userId"), text(message, "anonymousId"));
        let kind = message.get("type").and_then(Value::as_str);
        let from = match kind {
            Some("alias") => text(message, "previousId"),
            Some("identify") if user.is_some() => anonymous.clone(),
            _ => None,
        };
        let user = user.or(anonymous);
        if let (Some(user), Some(from)) = (&user, from)
            && *user != from
        {
            self.merges.push((from, user.clone()));
        }
        let Some(segment) = segment.or_else(|| text(message, "event")) else {
            self.ignored += 1;
            return;
        };
        let Some(user) = user else {
            return self.codes.push("invalid_user_id");
        };
        let time = message.get("timestamp").filter(|time| !time.is_null());
        let at = time.map(|time| time.as_str().and_then(|time| time.parse().ok()));
        match at {
            Some(None) => self.codes.push("invalid_at"),
            at => self.pairs.push((user, segment, at.flatten())),
        }
    }
}

#[test]
fn messages_are_read_as_documented() {
    bolero::check!()
        .with_type::<Vec<[u8; NAMES.len()]>>()
        .for_each(|given| {
            let mut expected = Expected::default();
            let mut batch = Vec::new();
            // Errors beyond the first hundred are not listed.
            for values in given.iter().take(100) {
                let members = NAMES.iter().zip(values);
                let members = members
                    .filter_map(|(name, number)| Some(((*name).to_owned(), value(*number)?)));
                let message: Map<String, Value> = members.collect();
                expected.take(&message);
                batch.push(Value::Object(message));
            }
            let rules = crate::settings::PairNames::default().messages;
            let mut read = Expected::default();
            let mut push = |user: &str, segment: &str, at: Option<Timestamp>| {
                read.pairs.push((user.to_owned(), segment.to_owned(), at));
                Ok(())
            };
            let body = json!({"batch": batch}).to_string();
            let report = messages(
                body.as_bytes(),
                Dialect::Batch,
                &rules,
                Timestamp::UNIX_EPOCH,
                &mut push,
            );
            let report = report.unwrap();
            read.codes = report.errors.iter().map(|error| error.code).collect();
            read.ignored = report.ignored;
            let merges = report.merges.into_iter();
            read.merges = merges.map(|merge| (merge.from, merge.into)).collect();
            assert_eq!(read, expected, "{body}");
        });
}

const WORDS: &[&str] = &[
    "{\"batch\":[",
    "{\"userId\":\"u\",\"event\":\"e\"}",
    "\"properties\":{\"segment\":",
    "\"userId\":",
    "\"timestamp\":",
    "\"sentAt\":",
    "\"2026-11-21T12:00:00Z\"",
    "\"context\":{\"a\":[[],{}],\"b\":{\"c\":-1.5e3}}",
    "[[[[[[[[[[[[[[[[[[",
    "]]]]]]]]]]]]]]]]]]",
    "\"\\u0061\\\"\"",
    "\"us\\u0065rId\":",
    "null",
    "true",
    "{}",
    "}]}",
    " \r\n\t",
    ",",
    "Юля",
];

#[test]
fn one_pass_reads_what_the_json_parser_reads() {
    bolero::check!()
        .with_type::<(Vec<u8>, Vec<fuzzing::Edit>)>()
        .for_each(|(words, edits)| {
            let mut bytes = br#"{"batch":[{"type":"identify","userId":"u","anonymousId":null,"context":{"n":[1]}},{"userId":"v","event":"e","properties":{"a":1,"segment":"s"}}],"sentAt":"2026-11-21T12:00:00Z"}"#.to_vec();
            fuzzing::edit(&mut bytes, edits);
            for bytes in [bytes, fuzzing::spell(words, WORDS)] {
                let Ok(text) = std::str::from_utf8(&bytes) else {
                    continue;
                };
                let rules = crate::settings::PairNames::default().messages;
                let context = Context {
                    rules: &rules,
                    now: Timestamp::UNIX_EPOCH,
                };
                if let Some(found) = body::in_one_pass::<segment::Written>(text, context) {
                    let expected = body::one_by_one::<segment::Written>(text, context).unwrap();
                    assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{text}");
                }
                let mut rest = Rest::of(text);
                if rest.skip().is_some() && rest.is_blank() {
                    serde_json::from_str::<serde::de::IgnoredAny>(text).unwrap();
                }
            }
        });
}

#[test]
fn one_pass_reads_messages_of_libraries_and_leaves_members_that_come_twice() {
    let rules = crate::settings::PairNames::default().messages;
    let read = |message: &str| {
        let body = format!(r#" {{ "batch" : [ {message} ] , "sentAt" : null }} "#);
        let context = Context {
            rules: &rules,
            now: Timestamp::UNIX_EPOCH,
        };
        let found = body::in_one_pass::<segment::Written>(&body, context);
        found.map(|found| found.entries.len())
    };
    let mut rest =
        Rest::of(r#"{"userId":"u","anonymousId":null,"properties":{"n":[1,true],"segment":"s"}}"#);
    assert!(segment::Written::plain(&mut rest).is_some() && rest.is_blank());
    assert_eq!(read(r#"{ "userId" : 42 , "event" : "e\n" }"#), Some(1));
    assert_eq!(read(r#"{"userId":null,"userId":"u","event":"e"}"#), None);
    assert_eq!(
        read(r#"{"properties":{"segment":"a","segment":"b"}}"#),
        None
    );
    assert_eq!(read(r#"{"properties":{},"properties":{}}"#), None);
    assert_eq!(read("7"), None);
    let deep = format!(
        "{{\"event\":\"e\",\"x\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(read(&deep), Some(1));
}
