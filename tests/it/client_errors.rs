//! Mistakes of clients, and the error messages of the service.

use crate::support::app::App;

const LINES: &str = "application/x-ndjson";
const JSON: &str = "application/json";

#[tokio::test]
async fn a_misnamed_time_field_is_reported() {
    let app = App::start().await;
    let item = r#"{"user_id":"u","segment":"s","timestamp":"2020-01-01T00:00:00Z"}"#;
    for (kind, body) in [
        (LINES, format!("{item}\n{item}\n")),
        (JSON, item.to_owned()),
    ] {
        let answer = app.post(kind, body).await;
        assert_eq!(answer.status, 200);
        let warning = answer.json["warnings"][0].as_str().unwrap();
        assert!(
            warning.contains("`timestamp`") && warning.contains("seen now"),
            "{warning}"
        );
    }
    let fine = r#"{"user_id":"u","segment":"s"}"#;
    let answer = app.post(JSON, fine).await;
    assert!(answer.json.get("warnings").is_none(), "{answer:?}");
    app.stop().await;
}

#[tokio::test]
async fn error_messages_state_what_to_send_instead() {
    let app = App::start().await;
    for (at, part) in [
        ("1795262400123", "unix time in milliseconds, send seconds"),
        (
            "1795262400123456",
            "unix time in microseconds, send seconds",
        ),
        (
            "1795262400123456789",
            "unix time in nanoseconds, send seconds",
        ),
        ("\"1795262400\"", "without quotes"),
        ("\"2026-11-21T12:00:00\"", "append Z for UTC"),
    ] {
        let answer = app
            .post(
                JSON,
                format!(r#"{{"user_id":"u","segment":"s","at":{at}}}"#),
            )
            .await;
        assert_eq!(answer.status, 422);
        let message = answer.json["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
    let answer = app.post(JSON, r#"{"userId":"secret","segment":"s"}"#).await;
    let message = answer.json["errors"][0]["message"].as_str().unwrap();
    assert_eq!(message, "user_id is missing: rename `userId` to `user_id`");

    let fine = r#"{"user_id":"u","segment":"s","at":"2026-11-21T11:59:59.123456789012345Z"}"#;
    assert_eq!(app.post(JSON, fine).await.status, 200);

    for path in [
        "/v1/segments/a/b/count",
        "/v1/segments/a/b/trend",
        "/v1/users/a/b",
    ] {
        let answer = app.get(path).await;
        assert_eq!(answer.problem(), (404, "not_found"));
        assert!(answer.text.contains("%2F"), "{}", answer.text);
    }
    app.stop().await;
}
