//! The InfluxDB store in front of a faulty server: no panic, no wrong count, no silently lost pair.

use std::time::{Duration, Instant};

use domain::store::{PairStore, StoreError};
use domain::{Batch, BatchBuilder, Segment, Slot, TimeFrame, Timestamp, UserId};
use stores::influx::{InfluxOptions, InfluxStore, PointKey};

use crate::support::closed_port::ClosedPort;
use crate::support::fault_server::{FaultServer, Reply};
use crate::support::wait::until;

const SECRET_USER: &str = "secret-user-id";
/// Longer than any operation that ends.
const GENEROUS: Duration = Duration::from_secs(120);

fn frame() -> TimeFrame {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    TimeFrame::new(minutes(60), minutes(1), minutes(5)).unwrap()
}

/// Options with timeouts that a busy machine does not reach.
fn options(url: &str) -> InfluxOptions {
    InfluxOptions {
        key: Some(PointKey::new([7; 16])),
        write_timeout: GENEROUS,
        write_deadline: GENEROUS,
        query_timeout: GENEROUS,
        ..InfluxOptions::new(url, "o", "b", "token", frame())
    }
}

fn store(server: &FaultServer) -> InfluxStore {
    InfluxStore::open(options(&server.url())).unwrap()
}

/// A store with short timeouts.
fn store_with_short_timeouts(server: &FaultServer) -> InfluxStore {
    let options = InfluxOptions {
        write_timeout: Duration::from_millis(300),
        write_deadline: Duration::from_millis(600),
        query_timeout: Duration::from_millis(500),
        ..options(&server.url())
    };
    InfluxStore::open(options).unwrap()
}

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

async fn count(store: &InfluxStore) -> Result<u64, StoreError> {
    let segment = Segment::new("s").unwrap();
    let counted = store
        .count(&segment, frame().full_window(), Timestamp::now())
        .await;
    counted.map(|count| count.users)
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

const ROW: &str = "#datatype,string,long,string,string,long\r\n,result,table,_field,segment,_value\r\n\
                   ,_result,0,user,s,12\r\n\r\n";
const NOTHING: &str = "\r\n";
const FIELDS: &str = r#"{"results":[{"statement_id":0,"series":[{"name":"pair","columns":["fieldKey","fieldType"],"values":[["user","string"]]}]}]}"#;

/// The count from a server that sends the same reply to every query.
async fn count_against(reply: Reply) -> Result<u64, StoreError> {
    let stalls = matches!(reply, Reply::Stall | Reply::BytesThenStall(_));
    let server = FaultServer::start(move |_, request| {
        // The second request of a count reads the field types.
        if request.target.starts_with("/query?org=o&q=SHOW+FIELD+KEYS") {
            return Reply::status(200, "", FIELDS);
        }
        assert!(request.target.starts_with("/api/v2/query?org=o"));
        reply.clone()
    })
    .await;
    let store = if stalls {
        store_with_short_timeouts(&server)
    } else {
        store(&server)
    };
    count(&store).await
}

#[tokio::test]
async fn a_complete_response_is_a_count() {
    assert_eq!(count_against(Reply::csv(ROW)).await.unwrap(), 12);
    assert_eq!(count_against(Reply::csv(NOTHING)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_broken_response_is_an_error() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n";
    let length = ROW.len();
    let error_table = format!(
        "{ROW}\r\n#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n,broke,\r\n"
    );
    let cases = [
        (
            "a cut chunk",
            Reply::text(&format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{}",
                &ROW[..90]
            )),
        ),
        (
            "no last chunk",
            Reply::text(&format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{ROW}\r\n"
            )),
        ),
        (
            "a short body",
            Reply::text(&format!(
                "{head}Content-Length: {}\r\n\r\n{ROW}",
                length + 1
            )),
        ),
        (
            "no framing and a cut",
            Reply::text(&format!("{head}\r\n{}", &ROW[..ROW.len() - 1])),
        ),
        (
            "no framing and only a header",
            Reply::text(&format!("{head}\r\n{}", &ROW[..90])),
        ),
        (
            "an empty body",
            Reply::text(&format!("{head}Content-Length: 0\r\n\r\n")),
        ),
        ("an error table after rows", Reply::csv(&error_table)),
        (
            "an HTML page",
            Reply::csv("<html><body>It works</body></html>\r\n\r\n"),
        ),
        (
            "invalid UTF-8",
            Reply::Bytes([head.as_bytes(), b"\r\n\xff\xfe,\x00\r\n\r\n"].concat()),
        ),
        ("not a number", Reply::csv(&ROW.replace("12", "many"))),
        ("a negative number", Reply::csv(&ROW.replace("12", "-12"))),
        ("not HTTP", Reply::text("hello\r\n\r\n")),
        ("no response", Reply::Bytes(Vec::new())),
        ("a stall", Reply::Stall),
        (
            "a stall in the body",
            Reply::BytesThenStall(
                format!("{head}Content-Length: {length}\r\n\r\n{}", &ROW[..90]).into_bytes(),
            ),
        ),
        ("no content", Reply::written()),
    ];
    for (case, reply) in cases {
        let counted = count_against(reply).await;
        assert!(
            matches!(
                counted,
                Err(StoreError::Unavailable(_) | StoreError::Timeout(_))
            ),
            "{case}: {counted:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_query_maps_to_the_right_error() {
    let overload =
        r#"{"code":"invalid","message":"memory allocation limit reached: limit 1 bytes"}"#;
    for (status, body, name) in [
        (400, overload, "busy"),
        (400, "", "rejected"),
        (401, "", "unavailable"),
        (404, "", "not_set_up"),
        (429, "", "busy"),
        (500, "", "unavailable"),
        (503, "", "unavailable"),
    ] {
        let error = count_against(Reply::status(status, "", body))
            .await
            .unwrap_err();
        assert_eq!(error.name(), name, "{status} {body}");
    }
}

#[tokio::test]
async fn a_count_fails_without_field_types_or_erasures() {
    let erased = FIELDS.replace(
        r#""series":["#,
        r#""series":[{"name":"erased","columns":[],"values":[["points","integer"]]},"#,
    );
    for (fields, erasures) in [
        (Reply::status(503, "", ""), Reply::csv(NOTHING)),
        (Reply::status(200, "", &erased), Reply::status(503, "", "")),
    ] {
        let server =
            FaultServer::start(
                move |_, request| match request.target.starts_with("/query?") {
                    true => fields.clone(),
                    false if request.text().contains("erased") => erasures.clone(),
                    false => Reply::csv(ROW),
                },
            )
            .await;
        let error = count(&store(&server)).await.unwrap_err();
        assert_eq!(error.name(), "unavailable");
    }
}

/// If the server does not report field types, or reports mixed types, a count queries each shard by itself.
#[tokio::test]
async fn without_field_types_a_count_queries_each_shard() {
    let mixed = FIELDS.replace(r#"[["user","#, r#"[["user","integer"],["user","#);
    for fields in [
        Reply::status(404, "", "no such page"),
        Reply::csv(NOTHING),
        Reply::status(200, "", &mixed),
    ] {
        let server = FaultServer::start(move |_, request| {
            match request.target.starts_with("/query?") {
                true => fields.clone(),
                false if request.text().contains("union(tables") => Reply::csv(ROW),
                // A possible result of a query over several shards with mixed types.
                false => Reply::csv(NOTHING),
            }
        })
        .await;
        let store = store(&server);
        assert_eq!(count_of_two_shards(&store).await, 12);
        // The second count queries the shards immediately.
        let before = server.requests().len();
        assert_eq!(count_of_two_shards(&store).await, 12);
        assert_eq!(server.requests().len(), before + 1);
    }
}

/// A count as of the second minute of an hour. Its window spans two shards of an hour.
async fn count_of_two_shards(store: &InfluxStore) -> u64 {
    let segment = Segment::new("s").unwrap();
    let as_of = Timestamp::from_second(1_800_000_000 + 60).unwrap();
    let counted = store.count(&segment, frame().full_window(), as_of).await;
    counted.unwrap().users
}

#[tokio::test]
async fn lists_are_complete_or_an_error() {
    let rows = "#datatype,string,long,string\r\n,result,table,segment\r\n,,0,b\r\n,,1,a\r\n\r\n";
    let whole = FaultServer::start(move |_, _| Reply::csv(rows)).await;
    let listed = store(&whole).segments(Timestamp::now()).await.unwrap();
    assert_eq!(
        listed,
        [Segment::new("a").unwrap(), Segment::new("b").unwrap()]
    );

    let cut = FaultServer::start(move |_, _| Reply::csv(&rows[..rows.len() - 2])).await;
    let user = UserId::new(SECRET_USER).unwrap();
    assert_eq!(
        store(&cut)
            .segments(Timestamp::now())
            .await
            .unwrap_err()
            .name(),
        "unavailable"
    );
    let error = store(&cut)
        .memberships(&user, Timestamp::now())
        .await
        .unwrap_err();
    assert!(!error.to_string().contains(SECRET_USER));
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

/// Stalled bodies hold connections until their deadline but no thread, so that blocking work continues.
#[test]
fn stalled_responses_block_no_thread() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
            ROW.len(),
            &ROW[..90]
        );
        let server =
            FaultServer::start(move |_, _| Reply::BytesThenStall(head.clone().into_bytes())).await;
        let slow_options = InfluxOptions {
            query_timeout: Duration::from_secs(3600),
            ..options(&server.url())
        };
        let store = std::sync::Arc::new(InfluxStore::open(slow_options).unwrap());
        let mut counts = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let store = std::sync::Arc::clone(&store);
            counts.spawn(async move { count(&store).await });
        }
        until("all queries are sent", async || {
            server.requests().len() == 5
        })
        .await;
        // Twice, so that the counts have processed the response headers before the second check.
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let worked = tokio::task::spawn_blocking(|| ());
            let worked = tokio::time::timeout(GENEROUS, worked).await;
            worked.expect("a thread was free").unwrap();
        }
        assert!(counts.try_join_next().is_none(), "all counts still wait");
        counts.shutdown().await;
    });
}

#[tokio::test]
async fn user_lookups_are_limited() {
    let server = FaultServer::start(|_, _| Reply::Stall).await;
    let store = InfluxStore::open(InfluxOptions {
        lookups: 2,
        lookup_wait: Duration::from_millis(50),
        ..options(&server.url())
    })
    .unwrap();
    let user = UserId::new("u").unwrap();
    let now = Timestamp::now();
    let two = async {
        let (looked, erased) =
            tokio::join!(store.memberships(&user, now), store.forget(&user, now));
        panic!("the server does not respond: {looked:?}, {erased:?}");
    };
    let others = async {
        until("two queries are sent", async || {
            server.requests().len() == 2
        })
        .await;
        let (looked, erased) = tokio::join!(
            futures::future::join_all((0..5).map(|_| store.memberships(&user, now))),
            futures::future::join_all((0..5).map(|_| store.forget(&user, now))),
        );
        let looked = looked.into_iter().map(Result::unwrap_err);
        let errors = looked.chain(erased.into_iter().map(Result::unwrap_err));
        for error in errors {
            assert_eq!(error.name(), "busy", "{error}");
        }
    };
    tokio::select! {
        () = two => {}
        () = others => {}
    }
    assert_eq!(server.requests().len(), 2);
}
