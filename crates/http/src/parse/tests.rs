use proptest::prelude::*;

use super::*;
use domain::{InvalidInstant, InvalidSegment, InvalidUserId};

type Pushed = (String, String, Option<i64>);

/// Accepts everything but an empty user id and an empty segment.
fn collect(into: &mut Vec<Pushed>) -> impl Push + '_ {
    |user: &str, segment: &str, at: Option<Timestamp>| {
        if user.is_empty() {
            return Err(InvalidUserId::Empty.into());
        }
        if segment.is_empty() {
            return Err(InvalidSegment::Empty.into());
        }
        into.push((user.into(), segment.into(), at.map(Timestamp::as_second)));
        Ok(())
    }
}

fn lines(body: &[u8]) -> (Vec<Pushed>, Report) {
    let mut pushed = Vec::new();
    let report = ndjson(body, &mut collect(&mut pushed));
    (pushed, report)
}

fn document(body: &[u8]) -> Result<(Vec<Pushed>, Report), BadBody> {
    let mut pushed = Vec::new();
    let report = json(body, &mut collect(&mut pushed))?;
    Ok((pushed, report))
}

fn codes(report: &Report) -> Vec<(usize, &'static str)> {
    report
        .errors
        .iter()
        .map(|error| (error.index, error.code))
        .collect()
}

fn pair(user: &str, segment: &str, at: Option<i64>) -> Pushed {
    (user.into(), segment.into(), at)
}

#[test]
fn a_control_character_before_a_quote_is_no_end_of_a_string() {
    for control in ["\t", "\r", "\t \r"] {
        let item = format!(r#"{{"user_id":"u1{control}","segment":"a"}}"#);
        for (pushed, report) in [
            lines(item.as_bytes()),
            document(format!("[{item}]").as_bytes()).unwrap_or_default(),
        ] {
            assert_eq!(pushed, [], "{control:?}");
            assert_eq!(report.rejected(), report.items);
        }
        let message = format!(r#"{{"batch":[{{"userId":"u1{control}","event":"e"}}]}}"#);
        let rules = crate::settings::PairNames::default().messages;
        let dialect = messages::Dialect::Batch;
        let now = Timestamp::UNIX_EPOCH;
        let read = messages::messages(message.as_bytes(), dialect, &rules, now, &mut |_, _, _| {
            Ok(())
        });
        assert!(read.is_err());
    }
}

#[test]
fn every_way_of_writing_a_pair() {
    let noon = Some(1_795_262_400);
    for (text, expected) in [
        (r#"{"user_id":"u1","segment":"a"}"#, pair("u1", "a", None)),
        (
            r#" { "segment" : "a" , "user_id" : "u1" } "#,
            pair("u1", "a", None),
        ),
        (
            r#"{"user_id":7,"segment":"a","at":null}"#,
            pair("7", "a", None),
        ),
        (r#"{"user_id":-7,"segment":"a"}"#, pair("-7", "a", None)),
        (r#"{"user_id":-0,"segment":"a"}"#, pair("0", "a", None)),
        (
            r#"{"user_id":340282366920938463463374607431768211456,"segment":"a"}"#,
            pair("340282366920938463463374607431768211456", "a", None),
        ),
        (
            r#"{"user_id":"u\u0031","segment":"\ud83c\udfc0"}"#,
            pair("u1", "🏀", None),
        ),
        (
            r#"{"us\u0065r_id":"u1","segment":"a\/b"}"#,
            pair("u1", "a/b", None),
        ),
        (
            r#"{"user_id":"Юля","segment":"новости"}"#,
            pair("Юля", "новости", None),
        ),
        (
            r#"{"user_id":"u1","segment":"a","at":"2026-11-21T12:00:00Z"}"#,
            pair("u1", "a", noon),
        ),
        (
            r#"{"user_id":"u1","segment":"a","at":"2026-11-21T12\u003a00:00Z"}"#,
            pair("u1", "a", noon),
        ),
        (
            r#"{"user_id":"u1","segment":"a","at":1795262400}"#,
            pair("u1", "a", noon),
        ),
        (
            r#"{"user_id":"u1","segment":"a","at":1795262400.75}"#,
            pair("u1", "a", noon),
        ),
        (
            r#"{"user_id":"u1","segment":"a","at":1e400}"#,
            pair("u1", "a", Some(Timestamp::MAX.as_second())),
        ),
        (
            r#"{"user_id":"u1","segment":"a","at":-1}"#,
            pair("u1", "a", Some(-1)),
        ),
        (
            r#"{"x":[{}],"user_id":"u1","y":{"user_id":2},"segment":"a","x":1e999}"#,
            pair("u1", "a", None),
        ),
    ] {
        let once = std::slice::from_ref(&expected);
        assert_eq!(lines(text.as_bytes()).0, once, "{text}");
        assert_eq!(document(text.as_bytes()).unwrap().0, once, "{text}");
        let array = format!("[{text},{text}]");
        assert_eq!(
            document(array.as_bytes()).unwrap().0,
            [expected.clone(), expected]
        );
    }
}

#[test]
fn every_way_of_getting_an_item_wrong() {
    for (text, code) in [
        (r#"{"segment":"a"}"#, "invalid_user_id"),
        (r#"{"user_id":null,"segment":"a"}"#, "invalid_user_id"),
        (r#"{"user_id":1.5,"segment":"a"}"#, "invalid_user_id"),
        (r#"{"user_id":1e3,"segment":"a"}"#, "invalid_user_id"),
        (r#"{"user_id":true,"segment":"a"}"#, "invalid_user_id"),
        (r#"{"user_id":{"a":1},"segment":"a"}"#, "invalid_user_id"),
        (r#"{"user_id":["u"],"segment":"a"}"#, "invalid_user_id"),
        (r#"{"user_id":"\ud800","segment":"a"}"#, "invalid_user_id"),
        (r#"{"user_id":"","segment":"a"}"#, "invalid_user_id"),
        (r#"{"user_id":"u1"}"#, "invalid_segment"),
        (r#"{"user_id":"u1","segment":7}"#, "invalid_segment"),
        (r#"{"user_id":"u1","segment":""}"#, "invalid_segment"),
        (
            r#"{"user_id":"u1","segment":"a","at":"noon"}"#,
            "invalid_at",
        ),
        (r#"{"user_id":"u1","segment":"a","at":true}"#, "invalid_at"),
        (r#"{"user_id":"u1","segment":"a","at":{}}"#, "invalid_at"),
        (
            r#"{"user_id":"u1","user_id":"u1","segment":"a"}"#,
            "malformed",
        ),
        (
            r#"{"user_id":"u1","segment":"a","at":null,"at":1}"#,
            "malformed",
        ),
        (r#"["u1","a"]"#, "malformed"),
        ("7", "malformed"),
        (r#""u1""#, "malformed"),
    ] {
        let good = r#"{"user_id":"u","segment":"s"}"#;
        let (pushed, report) = lines(format!("{good}\n{text}\n{good}").as_bytes());
        assert_eq!(
            (pushed.len(), codes(&report)),
            (2, vec![(1, code)]),
            "{text}"
        );
        let (pushed, report) = document(format!("[{good},{text},{good}]").as_bytes()).unwrap();
        assert_eq!(
            (pushed.len(), codes(&report)),
            (2, vec![(1, code)]),
            "{text}"
        );
    }
}

#[test]
fn messages_know_the_likely_mistake() {
    for (text, part) in [
        (
            r#"{"userId":"u","segment":"a"}"#,
            "user_id is missing: rename `userId` to `user_id`",
        ),
        (
            r#"{"User_Id":"u","segment":"a"}"#,
            "rename `User_Id` to `user_id`",
        ),
        (r#"{"id":7,"segment":"a"}"#, "rename `id` to `user_id`"),
        (r#"{"user_id":null,"segment":"a"}"#, "user_id is missing"),
        (
            r#"{"user_id":"u","segmentName":"a"}"#,
            "rename `segmentName` to `segment`",
        ),
        (
            r#"{"user_id":"u","segments":["a","b"]}"#,
            "an item with `segment` for each",
        ),
        (
            r#"{"user_id":"u","segment":["a","b"]}"#,
            "an item for each segment",
        ),
        (
            r#"{"user_id":"\ud800","segment":"a"}"#,
            "user_id has half a surrogate pair",
        ),
        (
            r#"{"user_id":"u","segment":"a\udfff"}"#,
            "segment has half a surrogate pair",
        ),
        (
            r#"{"user_id":"u","segment":"a","at":"\ud800"}"#,
            "at has half a surrogate pair",
        ),
        (
            r#"{"user_id":"u","segment":"a","at":"1795262400"}"#,
            "a number in quotes",
        ),
        (
            r#"{"user_id":"u","segment":"a","at":"1795262400.5"}"#,
            "a number in quotes",
        ),
        (
            r#"{"user_id":"u","segment":"a","at":"2026-11-21T12:00:00"}"#,
            "has no time zone",
        ),
        (
            r#"{"user_id":"u","segment":"a","at":"2026-11-21 12:00:00.123"}"#,
            "has no time zone",
        ),
        (
            r#"{"user_id":"u","segment":"a","at":"2026-11-21 12:00:00 UTC"}"#,
            "write Z for UTC",
        ),
        (
            r#"{"user_id":"u","segment":"a","at":"2026-11-21"}"#,
            "a date without a time",
        ),
        (r#"{"user_id":"u","segment":"a","at":""}"#, "omit it"),
        (
            r#"{"user_id":"u","segment":"a","at":"noon"}"#,
            "must be RFC 3339, such as",
        ),
        (
            r#"{"user_id":"u","segment":"a","at":true}"#,
            "must be RFC 3339 in a string",
        ),
        (
            r#"[{"user_id":"u","segment":"a"}]"#,
            "send an array as application/json",
        ),
    ] {
        let message = &lines(text.as_bytes()).1.errors[0].message;
        assert!(message.contains(part), "{text}: {message}");
    }
    let text = "{\"user_id\":\"u\",\"segment\":\"s\"}\n{\"user_id\":\"v\",\"segment\":\"s\"}\n";
    assert!(matches!(document(text.as_bytes()), Err(BadBody::Lines)));
}

#[test]
fn a_time_in_another_unit_is_named() {
    for (at, unit) in [
        ("1795262400123", "unix time in milliseconds"),
        ("1795262400123456", "unix time in microseconds"),
        ("1795262400123456789", "unix time in nanoseconds"),
        ("17952624000", "server's clock"),
    ] {
        let text = format!(r#"{{"user_id":"u","segment":"s","at":{at}}}"#);
        let report = ndjson(
            text.as_bytes(),
            &mut |_: &str, _: &str, _: Option<Timestamp>| Err(InvalidInstant::InFuture(300).into()),
        );
        assert!(report.errors[0].message.contains(unit), "{report:?}");
    }
}

#[test]
fn a_time_under_another_name_is_warned_of_once() {
    for name in ["timestamp", "ts", "lastSeen", "At", "event_time"] {
        let item = format!(r#"{{"user_id":"u","segment":"s","{name}":1577880000}}"#);
        let (pushed, report) = lines(format!("{item}\n{item}\n").as_bytes());
        assert_eq!(pushed.len(), 2);
        let [warning] = &report.warnings[..] else {
            panic!("{report:?}")
        };
        assert!(
            warning.starts_with(&format!("item 0 has `{name}` and no `at`")),
            "{warning}"
        );
        let (_, report) = document(item.as_bytes()).unwrap();
        assert_eq!(report.warnings.len(), 1);
    }
    for fine in [
        r#"{"user_id":"u","segment":"s","at":1795262400,"timestamp":1577880000}"#,
        r#"{"user_id":"u","segment":"s","country":"DE"}"#,
    ] {
        assert!(lines(fine.as_bytes()).1.warnings.is_empty(), "{fine}");
    }
}

#[test]
fn a_bad_line_keeps_its_neighbours() {
    let good = r#"{"user_id":"u","segment":"s"}"#;
    for bad in [
        "{",
        "{}x",
        "nonsense",
        "{\"user_id\":\"u\u{1}\",\"segment\":\"s\"}",
        "[",
        "\u{0}",
    ] {
        let body = format!("\n{good}\r\n \t\r\n{bad}\n\n{good}\n");
        let (pushed, report) = lines(body.as_bytes());
        assert_eq!((pushed.len(), report.items), (2, 3), "{bad}");
        assert_eq!(codes(&report), [(1, "malformed")], "{bad}");
    }
    let body = [
        good.as_bytes(),
        b"\n{\"user_id\":\"\xff\"}\n",
        good.as_bytes(),
    ]
    .concat();
    let (pushed, report) = lines(&body);
    assert_eq!((pushed.len(), codes(&report)), (2, vec![(1, "malformed")]));
}

#[test]
fn a_bad_document_is_refused_whole() {
    for bad in [
        "{",
        "[",
        "[{}",
        "[{},]",
        "[] []",
        "nonsense",
        "[{\"user_id\":\"u\"",
        "{\"user_id\":\"u\",}",
        "[\"\u{1}\"]",
    ] {
        assert!(
            matches!(document(bad.as_bytes()), Err(BadBody::NotJson(_))),
            "{bad}"
        );
    }
    assert!(matches!(document(b" \n"), Err(BadBody::Empty)));
    assert!(matches!(document(b"7"), Err(BadBody::Shape)));
    assert!(matches!(document(b"[\"\xff\"]"), Err(BadBody::NotUtf8(2))));
}

#[test]
fn nothing_is_no_error_of_the_parser() {
    for empty in ["", "\n\n", " \r\n\t"] {
        assert_eq!(lines(empty.as_bytes()).1, Report::default());
    }
    assert_eq!(document(b" [ ] ").unwrap().1, Report::default());
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let text = "\u{feff}{\"user_id\":\"u\",\"segment\":\"s\"}";
    assert_eq!(lines(text.as_bytes()).0.len(), 1);
    assert_eq!(document(text.as_bytes()).unwrap().0.len(), 1);
}

#[test]
fn only_the_first_hundred_errors_are_told() {
    let (_, report) = lines("x\n".repeat(250).as_bytes());
    assert_eq!(
        (report.errors.len(), report.rejected(), report.items),
        (100, 250, 250)
    );
    assert_eq!(report.rejected, [("malformed", 250)]);
}

#[test]
fn deep_nesting_is_no_danger() {
    let deep = "[".repeat(1_000_000);
    assert_eq!(codes(&lines(deep.as_bytes()).1), [(0, "malformed")]);
    assert!(document(deep.as_bytes()).is_err());
    let unknown = format!(
        r#"{{"user_id":"u","segment":"s","x":{deep}{}}}"#,
        "]".repeat(1_000_000)
    );
    assert_eq!(lines(unknown.as_bytes()).0.len(), 1);
}

#[test]
fn messages_quote_no_user_id() {
    for text in [
        r#"{"user_id":"secret","user_id":"secret","segment":"a"}"#,
        r#"{"user_id":"secret","segment":secret}"#,
        r#"{"user_id":"secret" "segment":"a"}"#,
        r#"{"user_id":["secret"],"segment":"a"}"#,
        r#""secret""#,
        r#"{"userId":"secret","secret":"secret","segment":"a"}"#,
        r#"{"user_id":"u","segment":"s","at":"secret"}"#,
    ] {
        let (_, report) = lines(text.as_bytes());
        assert!(!report.errors[0].message.contains("secret"), "{report:?}");
    }
}

/// Strings that are almost items, and sometimes valid items.
fn nearly_an_item() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        ",",
        ":",
        " ",
        "\t",
        "\r",
        "\"user_id\"",
        "\"segment\"",
        "\"at\"",
        "\"u1\"",
        "\"a\"",
        "\"é\"",
        "\"\\n\"",
        "\"x\u{1}\"",
        "\"",
        "\\",
        "7",
        "0",
        "07",
        "-1",
        "1.5",
        "1e3",
        "null",
        "true",
        "1795262400",
        "99999999999999999999",
        "\"2026-11-21T12:00:00Z\"",
        "\"9999-12-31T00:00:00Z\"",
        "é",
        "[",
        "]",
        "\u{a0}",
        "\"user_id\":\"u\",",
        "\"segment\":\"s\"",
        "{\"user_id\":8,\"segment\":\"s\"",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_plain_reader_agrees_with_the_json_parser(text in nearly_an_item()) {
        if let Some(plain) = plain::read(&text) {
            let (user_id, segment, at) = item::read_json(&text).unwrap();
            prop_assert_eq!((plain.user_id, plain.segment, plain.at), (&*user_id, &*segment, at));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic_or_lose_count(text in prop::collection::vec(nearly_an_item(), 0..5)) {
        let items = text.iter().filter(|line| !line.trim_ascii().is_empty()).count();
        let (pushed, report) = lines(text.join("\n").as_bytes());
        prop_assert_eq!(report.items, items);
        prop_assert_eq!(pushed.len() + report.rejected(), items);
        let _ = document(text.join("\n").as_bytes());
    }

    #[test]
    fn bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        lines(&body);
        let _ = document(&body);
    }
}
