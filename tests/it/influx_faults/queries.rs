//! Queries: broken, refused and stalled responses, field types, lists and look-ups.

use std::time::Duration;

use domain::store::{PairStore, StoreError};
use domain::{Segment, Timestamp, UserId};
use stores::influx::{InfluxOptions, InfluxStore};

use super::{GENEROUS, SECRET_USER, count, frame, options, store, store_with_short_timeouts};
use crate::support::fault_server::{FaultServer, Reply};
use crate::support::wait::until;

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
