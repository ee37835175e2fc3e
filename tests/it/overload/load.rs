//! A load of ten times the capacity: the service rejects the excess, keeps its memory bounded, serves readers, and
//! recovers afterwards.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{growth_mib, read_response, within};
use crate::open_loop_source::{OpenLoop, Script, Tally};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::service::Service;

/// Pairs in a post, each of another user.
const PAIRS: u64 = 100;
/// The minimum duration of the load.
const LOAD: Duration = Duration::from_secs(4);

/// Posts whose users appear in no other post, and their results.
#[derive(Clone, Default)]
struct Posts {
    /// The number of the first user of the first request.
    first: u64,
    /// Pairs of posts with a 200.
    acknowledged: Arc<AtomicU64>,
    /// Pairs of posts with an unknown result.
    unknown: Arc<AtomicU64>,
    /// The bodies of other responses.
    refusals: Arc<Mutex<Vec<String>>>,
}

impl Posts {
    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

impl Script for Posts {
    fn write_request(&self, n: u64, out: &mut Vec<u8>) {
        let first = self.first + n * PAIRS;
        let body = (first..first + PAIRS).fold(String::new(), |mut body, user| {
            writeln!(body, "{{\"user_id\":{user},\"segment\":\"a\"}}").unwrap();
            body
        });
        out.extend_from_slice(post(&body).as_bytes());
    }

    fn answered(&self, _: u64, answer: Option<(u16, &[u8])>) {
        match answer {
            Some((200, _)) => self.acknowledged.fetch_add(PAIRS, Ordering::SeqCst),
            // Rejected immediately: none of it reached the store.
            Some((429, body)) => {
                let mut refusals = self.refusals.lock().unwrap();
                refusals.push(String::from_utf8_lossy(body).into_owned());
                0
            }
            // It failed before or after it reached the store.
            _ => self.unknown.fetch_add(PAIRS, Ordering::SeqCst),
        };
    }
}

/// Repeated reads of a count.
struct Counts;

impl Script for Counts {
    fn write_request(&self, _: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"GET /v1/segments/a/count HTTP/1.1\r\nhost: localhost\r\n\r\n");
    }
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn plan(server: &Service, rate: f64, connections: usize) -> OpenLoop {
    OpenLoop {
        address: server.address(),
        rate,
        connections,
    }
}

/// Posts at this rate and reads concurrently, until the time is over and both have enough responses. Returns their
/// results.
async fn offer(
    server: &Service,
    rate: f64,
    posts: &Posts,
    is_enough: impl Fn(&Tally, &Tally) -> bool,
) -> (Tally, Tally) {
    let writing = plan(server, rate, 128).start(posts.clone());
    let reading = plan(server, 50.0, 4).start(Counts);
    let (mut writes, mut reads) = (Tally::default(), Tally::default());
    let offered = async {
        tokio::time::sleep(LOAD).await;
        loop {
            writes.add(&writing.take());
            reads.add(&reading.take());
            if is_enough(&writes, &reads) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("enough requests of the load get responses", offered).await;
    let rest = tokio::task::spawn_blocking(|| (writing.stop(), reading.stop()));
    let (of_writes, of_reads) = rest.await.unwrap();
    writes.add(&of_writes);
    reads.add(&of_reads);
    (writes, reads)
}

/// Posts at this rate until the time is over and one post was accepted. Returns the number of accepted posts.
async fn offer_alone(plan: OpenLoop, posts: &Posts, time: Duration) -> u64 {
    let writing = plan.start(posts.clone());
    let mut writes = Tally::default();
    let offered = async {
        while writes.of_status(200) == 0 {
            tokio::time::sleep(time).await;
            writes.add(&writing.take());
        }
    };
    within("a post is accepted", offered).await;
    let rest = tokio::task::spawn_blocking(|| writing.stop());
    writes.add(&rest.await.unwrap());
    writes.of_status(200)
}

/// Posts until a pair is accepted. A rejection states how long to wait.
async fn post_until_accepted(server: &Service) {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = post("{\"user_id\":\"late\",\"segment\":\"after\"}\n");
    let accepted = async {
        loop {
            stream.write_all(request.as_bytes()).await.unwrap();
            let (status, text) = read_response(&mut stream).await.unwrap();
            if status == 200 {
                return;
            }
            assert!(matches!(status, 429 | 503), "{text}");
            assert!(text.contains("retry-after: "), "{text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("a pair is accepted", accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_beyond_the_capacity_is_rejected_in_time() {
    let folder = tempfile::tempdir().unwrap();
    // One post at a time, so that two processors can offer ten times the capacity.
    let settings = [("QUEUE_PAIRS", "100"), ("MAX_BODY", "256 KiB")];
    let server = Service::start(folder.path(), &settings).await;
    let alone = Posts::default();
    let load = plan(&server, 10_000.0, 1);
    let capacity = offer_alone(load, &alone, Duration::from_secs(1)).await;
    let before = server.process().resident_bytes();

    let posts = Posts {
        first: 1 << 32,
        ..Posts::default()
    };
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let rate = (capacity * 10) as f64;
    let both = |writes: &Tally, reads: &Tally| {
        writes.of_status(200) > 0 && writes.of_status(429) > 0 && reads.answers() > 0
    };
    let (writes, reads) = offer(&server, rate, &posts, both).await;
    let growth = growth_mib(&server, before);

    // Every request that was sent got a response: accepted, or rejected with the reason.
    assert_eq!((writes.failed, reads.failed), (0, 0));
    let (taken, refused) = (writes.of_status(200), writes.of_status(429));
    assert!(taken > 0 && refused > 0, "{writes}");
    assert_eq!(taken + refused, writes.answers(), "{writes}");
    for refusal in &*posts.refusals.lock().unwrap() {
        assert!(refusal.contains("\"code\":\"busy\""), "{refusal}");
    }
    assert_eq!(reads.of_status(200), reads.answers(), "{reads}");
    assert!(reads.answers() > 0);
    // Request bodies may take 32 x 256 KiB, each accepted pair about 20 bytes, and 132 connections have their buffers.
    let accepted_mib = posts.acknowledged() * 20 / (1 << 20);
    assert!(growth < 8 + 24 + accepted_mib, "{growth} MiB");

    post_until_accepted(&server).await;
    let acknowledged = alone.acknowledged() + posts.acknowledged();
    assert_eq!(alone.unknown.load(Ordering::SeqCst), 0);
    assert_eq!(server.count("a").await, acknowledged);
    assert_eq!(server.count("after").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_store_fills_no_more_than_the_queue() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let proxy = Proxy::to(redis.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("redis://{}", proxy.address());
    let settings = [
        ("STORE", "redis"),
        ("REDIS_URL", url.as_str()),
        ("SPOOL_DIR", "off"),
        ("QUEUE_PAIRS", "5000"),
        ("MAX_BODY", "256 KiB"),
        ("REFRESH_MODE", "off"),
    ];
    let server = Service::start(folder.path(), &settings).await;
    let calm = Posts::default();
    let load = plan(&server, 20.0, 2);
    offer_alone(load, &calm, Duration::from_millis(500)).await;
    // From here on the count is in the cache, whatever happens to the store.
    server.count("a").await;
    let before = server.process().resident_bytes();

    proxy.stall();
    let posts = Posts {
        first: 1 << 32,
        ..Posts::default()
    };
    let both = |writes: &Tally, reads: &Tally| writes.of_status(503) > 0 && reads.answers() > 0;
    let (writes, reads) = offer(&server, 2_000.0, &posts, both).await;
    let growth = growth_mib(&server, before);
    assert_eq!((writes.failed, reads.failed), (0, 0));
    let (refused, away) = (writes.of_status(429), writes.of_status(503));
    // Some writes were in flight when the store stalled. The next ones found the queue full, and later ones found the
    // store unavailable.
    assert!(
        away > 0 && refused + away + writes.of_status(200) == writes.answers(),
        "{writes}"
    );
    assert_eq!(
        reads.of_status(200),
        reads.answers(),
        "last known counts: {reads}"
    );
    assert!(growth < 32, "{growth} MiB");

    proxy.restore();
    post_until_accepted(&server).await;
    let acknowledged = calm.acknowledged() + posts.acknowledged();
    let unknown = calm.unknown.load(Ordering::SeqCst) + posts.unknown.load(Ordering::SeqCst);
    let url = format!("{}/v1/segments/a/count?fresh=true", server.url());
    let counted: serde_json::Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let counted = counted["users"].as_u64().unwrap();
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&counted),
        "{counted}, {acknowledged} + {unknown}"
    );
}
