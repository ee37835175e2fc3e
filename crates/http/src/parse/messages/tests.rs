use super::*;
use serde_json::{Value, json};

const BOTH: [SegmentSource; 2] = [SegmentSource::Property, SegmentSource::Event];

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

type Seen = (String, String, Option<String>);

/// The pairs of a batch, the codes of its errors, and the number of ignored messages.
fn read(body: &Value, sources: &[SegmentSource]) -> (Vec<Seen>, Vec<&'static str>, usize) {
    let (pairs, report) = read_as(Dialect::Batch, body, sources);
    let codes = report.errors.iter().map(|error| error.code).collect();
    (pairs, codes, report.ignored)
}

fn rules(sources: &[SegmentSource]) -> MessageRules {
    MessageRules {
        segment: sources.to_vec(),
        merges: true,
    }
}

fn read_as(dialect: Dialect, body: &Value, sources: &[SegmentSource]) -> (Vec<Seen>, Report) {
    let mut pairs = Vec::new();
    let mut push = |user: &str, segment: &str, at: Option<Timestamp>| {
        let at = at.map(|at| at.to_string());
        pairs.push((user.to_owned(), segment.to_owned(), at));
        Ok(())
    };
    let body = body.to_string();
    let rules = rules(sources);
    let report = messages(body.as_bytes(), dialect, &rules, now(), &mut push).unwrap();
    (pairs, report)
}

fn names(pairs: &[Seen]) -> Vec<(&str, &str)> {
    let names = pairs.iter();
    names
        .map(|(user, segment, _)| (user.as_str(), segment.as_str()))
        .collect()
}

#[test]
fn the_segment_is_where_it_is_configured() {
    let body = json!({"batch": [
        {"type": "track", "userId": "u1", "event": "Viewed", "properties": {"segment": "sports"}},
        {"type": "track", "userId": "u2", "event": "Viewed", "properties": {}},
        {"type": "group", "userId": "u3", "groupId": 7},
        {"type": "page", "anonymousId": "u4", "name": "Home", "properties": {"segment": null}},
        {"type": "identify", "userId": "u5", "traits": {"segment": "no"}},
        {"type": "track", "userId": "u6", "event": "", "properties": {"segment": ""}},
    ]});
    let (pairs, codes, ignored) = read(&body, &BOTH);
    assert_eq!(names(&pairs), [("u1", "sports"), ("u2", "Viewed")]);
    assert_eq!((codes.len(), ignored), (0, 4));
    let (pairs, _, ignored) = read(&body, &[SegmentSource::GroupId, SegmentSource::Name]);
    assert_eq!(names(&pairs), [("u3", "7"), ("u4", "Home")]);
    assert_eq!(ignored, 4);
}

#[test]
fn a_user_is_known_by_name_or_else_without() {
    let body = json!({"batch": [
        {"userId": "u1", "anonymousId": "a1", "event": "e"},
        {"userId": null, "anonymousId": "a2", "event": "e"},
        {"userId": "", "anonymousId": "a3", "event": "e"},
        {"userId": 42, "event": "e"},
        {"event": "e"},
        {"userId": {"id": 1}, "event": "e"},
        7,
    ]});
    let (pairs, codes, ignored) = read(&body, &BOTH);
    let users: Vec<_> = names(&pairs).into_iter().map(|(user, _)| user).collect();
    assert_eq!(users, ["u1", "a2", "a3", "42"]);
    assert_eq!(codes, ["invalid_user_id", "invalid_user_id", "malformed"]);
    assert_eq!(ignored, 0);
}

#[test]
fn a_clock_that_is_off_is_corrected() {
    let at = |timestamp: Value, original: Value, own: Value, batch: Value| {
        let message = json!({
            "userId": "u", "event": "e", "timestamp": timestamp, "originalTimestamp": original, "sentAt": own
        });
        let (pairs, codes, _) = read(&json!({"batch": [message], "sentAt": batch}), &BOTH);
        match pairs.into_iter().next() {
            Some((.., at)) => at.unwrap_or_default(),
            None => codes[0].to_owned(),
        }
    };
    let null = || Value::Null;
    let time = |text: &str| json!(format!("2026-11-21T{text}Z"));
    let day = |text: &str| format!("2026-11-21T{text}Z");
    assert_eq!(at(null(), null(), null(), null()), "");
    assert_eq!(
        at(time("11:00:00"), time("10:00:00"), null(), null()),
        day("11:00:00")
    );
    assert_eq!(
        at(null(), time("10:00:00"), null(), null()),
        day("10:00:00")
    );
    // Sent half a minute ago by its own clock: the request took long, or the clock is slow by little.
    assert_eq!(
        at(time("11:00:00"), null(), null(), time("11:59:30")),
        day("11:00:00")
    );
    // An hour behind, and an hour ahead; made five minutes before.
    assert_eq!(
        at(time("10:55:00"), null(), null(), time("11:00:00")),
        day("11:55:00")
    );
    assert_eq!(
        at(time("12:55:00"), null(), time("13:00:00"), null()),
        day("11:55:00")
    );
    // Its own time of sending is newer than that of the batch.
    assert_eq!(
        at(time("11:00:00"), null(), time("12:00:00"), time("09:00:00")),
        day("11:00:00")
    );
    // Made after it was sent.
    assert_eq!(
        at(time("11:30:00"), null(), null(), time("11:00:00")),
        day("12:00:00")
    );
    assert_eq!(at(json!("soon"), null(), null(), null()), "invalid_at");
    assert_eq!(
        at(json!(1_700_000_000), null(), null(), null()),
        "invalid_at"
    );
}

#[test]
fn a_body_that_is_no_batch_is_refused() {
    let refused = |body: &[u8]| {
        let mut push = |_: &str, _: &str, _| panic!("there is no pair");
        messages(body, Dialect::Batch, &rules(&BOTH), now(), &mut push).unwrap_err()
    };
    assert!(matches!(refused(b" \n"), BadBody::Empty));
    assert!(matches!(refused(b"\xff"), BadBody::NotUtf8(0)));
    for body in ["{}", "[]", "{\"batch\": {}}", "{\"batch\": [}"] {
        assert!(
            matches!(refused(body.as_bytes()), BadBody::NotJson(_)),
            "{body}"
        );
    }
}

#[test]
fn one_message_is_of_the_type_that_its_path_names() {
    let alone = |kind, body: Value| {
        let (pairs, report) = read_as(Dialect::Message(kind), &body, &BOTH);
        (pairs.len(), report.merges)
    };
    let both = json!({"userId": "u1", "anonymousId": "a1"});
    assert_eq!(
        alone("identify", both.clone()),
        (0, merges(&[("a1", "u1")]))
    );
    assert_eq!(alone("track", both), (0, vec![]));
    let typed = json!({"type": "track", "userId": "u1", "anonymousId": "a1", "event": "e"});
    assert_eq!(alone("identify", typed), (1, vec![]));
}

fn merges(expected: &[(&str, &str)]) -> Vec<Merge> {
    let merge = |(from, into): &(&str, &str)| Merge {
        from: (*from).to_owned(),
        into: (*into).to_owned(),
    };
    expected.iter().map(merge).collect()
}

#[test]
fn identify_and_alias_merge_two_ids() {
    let body = json!({"batch": [
        {"type": "identify", "userId": "u1", "anonymousId": "a1"},
        {"type": "identify", "userId": "u1"},
        {"type": "identify", "anonymousId": "a2"},
        {"type": "identify", "userId": "u1", "anonymousId": "u1"},
        {"type": "alias", "userId": "u2", "previousId": 7},
        {"type": "alias", "userId": "u2"},
        {"type": "track", "userId": "u3", "anonymousId": "a3", "event": "e"},
    ]});
    let (_, report) = read_as(Dialect::Batch, &body, &BOTH);
    assert_eq!(report.merges, merges(&[("a1", "u1"), ("7", "u2")]));
    let body = json!({"batch": [
        {"event": "$identify", "distinct_id": "u1", "properties": {"$anon_distinct_id": "a1"}},
        {"event": "$create_alias", "distinct_id": "u2", "properties": {"alias": "a2"}},
        {"event": "$set", "distinct_id": "u2", "properties": {"alias": "a3"}},
    ]});
    let (pairs, report) = read_as(Dialect::PostHog, &body, &BOTH);
    assert_eq!(report.merges, merges(&[("a1", "u1"), ("a2", "u2")]));
    assert_eq!((pairs.len(), report.ignored), (0, 3));
}

#[test]
fn events_of_posthog_have_a_segment_like_others() {
    let body = json!({"api_key": "k", "sent_at": "2026-11-21T11:00:00+00:00", "batch": [
        {"event": "viewed", "distinct_id": "u1", "properties": {"segment": "sports"},
            "timestamp": "2026-11-21T10:59:00.5+00:00"},
        {"event": "bought", "distinct_id": 2},
        {"event": "$pageview", "distinct_id": "u3", "properties": {}},
        {"event": "bought"},
        {"event": "bought", "distinct_id": "u", "properties": []},
    ]});
    let (pairs, report) = read_as(Dialect::PostHog, &body, &BOTH);
    assert_eq!(names(&pairs), [("u1", "sports"), ("2", "bought")]);
    assert_eq!(pairs[0].2.as_deref(), Some("2026-11-21T11:59:00.5Z"));
    assert_eq!(report.ignored, 1);
    assert_eq!(report.rejected, [("invalid_user_id", 1), ("malformed", 1)]);
    let key = token(body.to_string().as_bytes(), Dialect::PostHog).unwrap();
    assert_eq!(key.as_deref(), Some("k"));
}

#[test]
fn events_of_snowplow_are_structured() {
    let body = json!({"schema": "iglu:…", "data": [
        {"e": "se", "se_ca": "segment", "se_ac": "sports", "uid": "u1", "aid": "app",
            "dtm": "1795262100000", "stm": "1795262400000"},
        {"e": "se", "se_ca": "shop", "se_ac": "bought", "duid": "d2", "ttm": "1795262100000"},
        {"e": "pv", "page": "Home", "duid": "d3"},
        {"e": "se", "se_ca": "segment", "se_ac": "sports"},
        {"e": "se", "se_ac": "bought", "uid": "u4", "dtm": "soon"},
    ]});
    let (pairs, report) = read_as(Dialect::Snowplow, &body, &BOTH);
    assert_eq!(names(&pairs), [("u1", "sports"), ("d2", "bought")]);
    // The clock of the service is 2026-11-21T12:00:00Z, which is 1795262400.
    let times: Vec<_> = pairs.iter().map(|(.., at)| at.as_deref()).collect();
    assert_eq!(times, [Some("2026-11-21T11:55:00Z"); 2]);
    assert_eq!(report.ignored, 1);
    assert_eq!(report.rejected, [("invalid_user_id", 1), ("invalid_at", 1)]);
    let (pairs, _) = read_as(Dialect::Snowplow, &body, &[SegmentSource::Name]);
    assert_eq!(names(&pairs), [("d3", "Home")]);
    let id = token(body.to_string().as_bytes(), Dialect::Snowplow).unwrap();
    assert_eq!(id.as_deref(), Some("app"));
}
