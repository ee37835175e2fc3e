//! Writes: retries, refused lines, retention, the queue and shutdown.

use std::time::{Duration, Instant};

use domain::store::{PairStore, StoreError};
use domain::{Batch, BatchBuilder, Slot, Timestamp, UserId};
use stores::influx::{InfluxOptions, InfluxStore};

use super::{SECRET_USER, count, frame, options, store, store_with_short_timeouts};
use crate::support::closed_port::ClosedPort;
use crate::support::fault_server::{FaultServer, Reply};

fn batch(users: &[&str]) -> Batch {
    let mut builder = BatchBuilder::default();
    let slot = frame().resolution().slot_of(Timestamp::now());
    for user in users {
        builder
            .push_pair(&UserId::new(*user).unwrap(), "s", slot)
            .unwrap();
    }
    builder.finish()
}

/// Records one pair on a server that sends the same reply to every request. Returns the error and the number of
/// requests.
async fn record_against(reply: Reply) -> (StoreError, usize) {
    let server = FaultServer::start(move |_, _| reply.clone()).await;
    let error = record_secret(&store(&server)).await;
    (error, server.requests().len())
}

/// Records a pair and returns the error, which must not name the user.
async fn record_secret(store: &InfluxStore) -> StoreError {
    let error = store.record(&batch(&[SECRET_USER])).await.unwrap_err();
    assert!(
        !error.to_string().contains(SECRET_USER),
        "the error names a user: {error}"
    );
    error
}

#[tokio::test]
async fn a_failed_write_is_retried_byte_for_byte() {
    let server = FaultServer::start(|number, _| match number {
        0 => Reply::status(
            500,
            "",
            r#"{"code":"internal error","message":"cache full"}"#,
        ),
        1 => Reply::Bytes(Vec::new()),
        2 => Reply::text("HTTP/1.1 503 Busy\r\nContent-Length: 50\r\n\r\ncut"),
        _ => Reply::written(),
    })
    .await;
    let store = store(&server);
    store.record(&batch(&["u1", "u2"])).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    assert!(
        requests
            .iter()
            .all(|request| request.body == requests[0].body)
    );
    assert_eq!(
        requests[0].target,
        "/api/v2/write?org=o&bucket=b&precision=ns"
    );
    let stats = store.stats();
    assert_eq!((stats.written, stats.retries), (2, 3));
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let server = FaultServer::start(|number, _| match number {
        0 => Reply::status(503, "Retry-After: 1\r\n", ""),
        _ => Reply::written(),
    })
    .await;
    let started = Instant::now();
    store(&server).record(&batch(&["u"])).await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "the retry came too early"
    );
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_fails_immediately() {
    let server = FaultServer::start(|_, _| Reply::status(503, "Retry-After: 3600\r\n", "")).await;
    let store = InfluxStore::open(InfluxOptions {
        // Shorter than the maximum `Retry-After`, and long enough for a busy machine.
        write_deadline: Duration::from_secs(30),
        ..options(&server.url())
    });
    let error = record_secret(&store.unwrap()).await;
    assert_eq!((error.name(), server.requests().len()), ("unavailable", 1));
}

#[tokio::test]
async fn permanent_errors_are_not_retried() {
    for (status, name) in [
        (401, "unavailable"),
        (403, "unavailable"),
        (404, "not_set_up"),
        // A proxy that responds instead of the server.
        (200, "unavailable"),
        (302, "unavailable"),
    ] {
        let (error, requests) = record_against(Reply::status(status, "", "")).await;
        assert_eq!(
            (error.name(), requests),
            (name, 1),
            "status {status}: {error}"
        );
    }
    let (error, _) = record_against(Reply::status(404, "", "")).await;
    assert!(error.to_string().contains("headcount setup"), "{error}");
}

#[tokio::test]
async fn attempts_are_limited() {
    for (reply, name) in [
        (Reply::status(500, "", ""), "unavailable"),
        (Reply::status(429, "", ""), "busy"),
        (Reply::text("SSH-2.0-OpenSSH\r\n"), "unavailable"),
        (Reply::Bytes(Vec::new()), "unavailable"),
    ] {
        let (error, requests) = record_against(reply.clone()).await;
        assert_eq!((error.name(), requests), (name, 4), "{reply:?}: {error}");
    }
}

#[tokio::test]
async fn a_stalled_response_times_out() {
    let server = FaultServer::start(|_, _| Reply::Stall).await;
    let error = record_secret(&store_with_short_timeouts(&server)).await;
    assert_eq!(error.name(), "timeout", "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable() {
    let closed_port = ClosedPort::new();
    let store = InfluxStore::open(options(&closed_port.url())).unwrap();
    assert_eq!(
        store.record(&batch(&["u"])).await.unwrap_err().name(),
        "unavailable"
    );
    assert_eq!(count(&store).await.unwrap_err().name(), "unavailable");
    assert_eq!(store.ping().await.unwrap_err().name(), "unavailable");
}

#[tokio::test]
async fn a_bad_line_fails_only_its_own_request() {
    let directory = tempfile::tempdir().unwrap();
    let refused = directory.path().join("refused.lp");
    let server = FaultServer::start(|_, request| {
        if request.text().contains(SECRET_USER) {
            let echo =
                format!(r#"{{"code":"invalid","message":"unable to parse '{SECRET_USER}'"}}"#);
            return Reply::status(400, "", &echo);
        }
        Reply::written()
    })
    .await;
    let store = InfluxStore::open(InfluxOptions {
        linger: Duration::from_millis(100),
        writes_in_flight: 1,
        dead_letter: Some(refused.clone()),
        ..options(&server.url())
    })
    .unwrap();
    let names: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    let good: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bad = good.clone();
    bad.insert(17, SECRET_USER);
    let batches = [batch(&good[..20]), batch(&bad), batch(&good[20..])];
    let [before, hit, after] = &batches;
    let (before, hit, after) =
        tokio::join!(store.record(before), store.record(hit), store.record(after));
    before.unwrap();
    after.unwrap();
    let error = hit.unwrap_err();
    assert!(!error.to_string().contains(SECRET_USER));
    let StoreError::Partly(partly) = error else {
        panic!("{error}");
    };
    assert_eq!((partly.refused, partly.kept), (vec![17], true));
    assert!(partly.open.is_empty());

    let stats = store.stats();
    assert_eq!(
        (stats.written, stats.refused, stats.dead_letter_lost),
        (80, 1, 0)
    );
    let kept = std::fs::read_to_string(refused).unwrap();
    let lines: Vec<&str> = kept.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 1, "only the bad line is set aside: {kept}");
    assert!(lines[0].contains(SECRET_USER));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_split() {
    let server = FaultServer::start(|_, request| {
        if request.text().lines().count() > 3 {
            return Reply::status(413, "", "");
        }
        Reply::written()
    })
    .await;
    let store = store(&server);
    let names: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    store.record(&batch(&names)).await.unwrap();
    assert_eq!(store.stats().written, 20);
}

#[tokio::test]
async fn lines_beyond_the_retention_are_expired_without_an_error() {
    let message = r#"{"code":"unprocessable entity","message":"failure writing points to database: partial write: dropped 2 points outside retention policy of duration 1h0m0s - oldest point pair,segment=s at 2026-01-01T00:00:00Z dropped because it violates a Retention Policy Lower Bound dropped=2 for database: 0 for retention policy: autogen"}"#;
    let server = FaultServer::start(move |_, _| Reply::status(422, "", message)).await;
    let store = store(&server);
    let slot = frame().resolution().slot_of(Timestamp::now());
    let mut pairs = BatchBuilder::default();
    for (user, minutes) in [("u1", 0), ("u2", 59), ("u3", 59)] {
        let slot = Slot::new(slot.number() - minutes);
        let user = UserId::new(user).unwrap();
        pairs.push_pair(&user, "s", slot).unwrap();
    }
    store.record(&pairs.finish()).await.unwrap();
    let stats = store.stats();
    assert_eq!((stats.written, stats.expired, stats.refused), (1, 2, 0));
    // Dropping present pairs means a retention shorter than the window.
    let error = store.record(&batch(&["u1", "u2"])).await.unwrap_err();
    assert_eq!(error.name(), "not_set_up");
    assert!(error.to_string().contains("retention"), "{error}");
    assert_eq!(store.stats().dropped_in_window, 2);
}

#[tokio::test]
async fn a_body_refused_as_a_whole_is_not_split() {
    let message = r#"{"code":"unprocessable entity","message":"partial write: field type conflict: input field \"user\" on measurement \"pair\" is type string, already exists as type integer dropped=3"}"#;
    let server = FaultServer::start(move |_, _| Reply::status(422, "", message)).await;
    let store = store(&server);
    let error = store.record(&batch(&["u1", "u2", "u3"])).await.unwrap_err();
    assert_eq!(error.name(), "partly");
    assert_eq!(server.requests().len(), 1);
    let stats = store.stats();
    assert_eq!((stats.refused, stats.dead_letter_lost), (3, 3));
}

#[tokio::test]
async fn a_full_queue_is_busy_and_recovers() {
    let server = FaultServer::start(|_, _| Reply::Stall).await;
    let store = InfluxStore::open(InfluxOptions {
        queue_pairs: 3,
        write_timeout: Duration::from_millis(300),
        write_deadline: Duration::from_millis(600),
        ..options(&server.url())
    })
    .unwrap();
    let (two, three) = (batch(&["u1", "u2"]), batch(&["u3", "u4", "u5"]));
    let (first, second) = tokio::join!(store.record(&two), store.record(&three));
    assert_eq!(first.unwrap_err().name(), "timeout");
    assert_eq!(second.unwrap_err().name(), "busy");
    // The queue capacity of the first batch is released once its write has ended.
    store.close().await.unwrap();
    assert_eq!(store.waiting_pairs(), 0);
}

#[tokio::test]
async fn closing_delivers_queued_pairs() {
    let server = FaultServer::start(|_, _| Reply::written()).await;
    let store = InfluxStore::open(InfluxOptions {
        linger: Duration::from_secs(3600),
        ..options(&server.url())
    })
    .unwrap();
    let pair = batch(&["u"]);
    let (recorded, closed) = tokio::join!(store.record(&pair), store.close());
    recorded.unwrap();
    closed.unwrap();
    assert_eq!(store.stats().written, 1);
    assert_eq!(
        store.record(&batch(&["u"])).await.unwrap_err().name(),
        "closed"
    );
}

#[tokio::test]
async fn a_pair_in_one_slot_is_always_the_same_point() {
    let server = FaultServer::start(|_, _| Reply::written()).await;
    for _ in 0..2 {
        let mut builder = BatchBuilder::default();
        let user = UserId::new("u104010").unwrap();
        builder
            .push_pair(&user, "a b", Slot::new(29_000_000))
            .unwrap();
        store(&server).record(&builder.finish()).await.unwrap();
    }
    for request in server.requests() {
        assert_eq!(
            request.text(),
            "pair,segment=a\\ b user=\"u104010\" 1740000043914336107\n"
        );
    }
}
