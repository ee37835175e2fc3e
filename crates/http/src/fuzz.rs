//! Fuzz targets: requests other than pairs, and the reading and decompression of bodies.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio_util::sync::CancellationToken;
use warp::http::{HeaderMap, StatusCode, Uri};

use super::authorization::Authorizer;
use super::body::Limits;
use super::cursor::{Cursor, Sort};
use super::encoding::Encoding;
use super::session::Sessions;
use crate::api::{Routes, find};
use crate::auth::Auth;
use crate::networks::Networks;
use crate::settings::{Cors, HttpSettings};
use domain::Segment;
use domain::SteadyClock;
use domain::store::PairStore;
use domain::store::conformance::frame;
use engine::{EngineOptions, Headcount, Opened};
use fuzzing::{Edit, edit, spell};
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use stores::memory::MemoryCache;
use telemetry::{LeftOut, SegmentMetrics, SegmentSample};

/// The window of the service, in minutes.
const FULL_WINDOW: u64 = 14 * 24 * 60;
/// What a path can't have.
pub(crate) const NOT_IN_PATHS: &AsciiSet = &CONTROLS.add(b' ');
const WORDS: &[&str] = &[
    "/v1/segments",
    "/sports",
    "/count",
    "/trend",
    "/v1/users/",
    "/users",
    "/merge",
    "/v1/events",
    "/segments/",
    "/metrics",
    "/metrics/segments",
    "/readyz",
    "?",
    "&",
    "window=",
    "fresh=",
    "prefix=",
    "sort=users",
    "limit=",
    "cursor=",
    "after=",
    "from=",
    "to=",
    "step=",
    "segment=",
    "q=",
    "order=",
    "page=",
    "range=",
    "next=",
    "7d",
    "1h 30m",
    "99999999999999999999y",
    "60",
    "18446744073709551615",
    "-1",
    "1e300",
    "true",
    "2026-11-21T12:00:00Z",
    "9999-12-31T23:59:59Z",
    "-9999-01-01T00:00:00Z",
    "n-73706f727473",
    "u7-61",
    "%00",
    "%ff",
    "%2F",
    "%F0%9F%8F%80",
    "+",
    "1s",
    "1ns",
    "25h",
    "\u{e9}",
    "..",
    "%5C",
];

/// A service without a server.
pub(crate) struct Bench {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) routes: Routes,
    pub(crate) app: Arc<Headcount>,
    _root: Option<tempfile::TempDir>,
}

impl Bench {
    /// Over the embedded store.
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions::new(root.path().join("data"), frame(FULL_WINDOW));
        let store = EmbeddedStore::open(options).unwrap();
        let bench = Self::over(Arc::new(store));
        Self {
            _root: Some(root),
            ..bench
        }
    }

    pub(crate) fn over(store: Arc<dyn PairStore>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let frame = frame(FULL_WINDOW);
        let opened = Opened {
            store,
            head: None,
            live: None,
        };
        let options = EngineOptions {
            frame,
            max_segments: 10_000,
            queue_pairs: 1_000_000,
            write_deadline: Duration::from_secs(2),
            user_key: None,
            spool: None,
            refreshes: false,
            refresh_interval: Duration::from_secs(60),
            refresh_parallelism: 1,
            refresh_windows: vec![frame.full_window()],
            cache_ttl: Duration::from_secs(900),
            memory_ttl: Duration::ZERO,
            max_event_clients: 100,
            min_users: domain::Floor::default(),
        };
        let settings = HttpSettings {
            cors: Cors::Off,
            trusted_proxies: Networks::default(),
            pair_names: crate::settings::PairNames::default(),
            max_body: 8 << 20,
            max_connections: 100,
            max_event_clients: 100,
            max_event_clients_per_token: 100,
            export: crate::settings::Switch::On,
            session_key: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            shutdown_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(1),
        };
        let cache = Arc::<MemoryCache>::default();
        let clock = Arc::<SteadyClock>::default();
        let opening = Headcount::open_over(options, opened, cache, clock, Arc::default());
        let app = runtime.block_on(opening).unwrap();
        let pairs = [("u1", "sports"), ("u2", "sports"), ("u1", "a/b 🏀")];
        runtime.block_on(app.record(pairs)).unwrap();
        let app = Arc::new(app);
        let auth = Arc::new(Auth::off(Arc::clone(app.clock())));
        let sessions = Sessions::new(None);
        let authorizer = Authorizer::new(auth, sessions, Arc::clone(app.metrics()));
        let stop = CancellationToken::new();
        let routes = Routes::of_service(&app, &settings, authorizer, stop.clone(), stop);
        Self {
            runtime,
            routes,
            app,
            _root: None,
        }
    }

    fn check(&self, target: &str, last_event_id: &str) {
        let Ok(uri) = target.parse::<Uri>() else {
            return;
        };
        if uri.scheme().is_some() || !target.starts_with('/') {
            return;
        }
        let Some(handler) = self.routes.handler(find(uri.path())) else {
            return;
        };
        let request = warp::test::request()
            .path(target)
            .header("last-event-id", last_event_id);
        let response = self.runtime.block_on(async {
            // An event stream has no end, so only its head is read.
            let streams = uri.path().starts_with("/v1/events");
            match streams {
                true => request
                    .filter(handler)
                    .await
                    .map(|response| (response.status(), Bytes::new())),
                false => {
                    let reply = request.reply(handler).await;
                    Ok((reply.status(), reply.into_body()))
                }
            }
        });
        let (status, body) = response.unwrap_or((StatusCode::NOT_FOUND, Bytes::new()));
        assert!(
            !status.is_server_error() || is_without_names(uri.path(), status, &body),
            "{target}: {status}"
        );
        if status.is_success() && uri.path().ends_with("/count") {
            let count: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let seconds = count["window_seconds"].as_u64().unwrap();
            assert!(seconds.is_multiple_of(60) && (60..=1_209_600).contains(&seconds));
            let users = count["users"].as_u64().unwrap();
            assert_eq!(
                users,
                match count["segment"].as_str().unwrap() {
                    "sports" => 2,
                    "a/b 🏀" => 1,
                    _ => 0,
                }
            );
        }
    }
}

/// Whether this is the response of the embedded store to an export: it has no names of users.
pub(crate) fn is_without_names(path: &str, status: StatusCode, body: &[u8]) -> bool {
    status == StatusCode::NOT_IMPLEMENTED
        && find(path).template == "/v1/segments/{segment}/users"
        && code_of(body).as_deref() == Some("unsupported")
}

/// The code of a problem.
pub(crate) fn code_of(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    // Errors for clients of InfluxDB have another form.
    problem.get("status")?;
    Some(problem.get("code")?.as_str()?.to_owned())
}

/// Paths, queries, cursors and `Last-Event-ID`: a client's mistake is never a 5xx.
#[test]
fn requests() {
    let bench = Bench::new();
    let bench = std::panic::AssertUnwindSafe(&bench);
    bolero::check!()
        .with_type::<(Vec<u8>, bool)>()
        .for_each(move |(input, in_api)| {
            let text = String::from_utf8_lossy(&spell(input, WORDS)).into_owned();
            let begin = if *in_api { "/v1/segments/sports/" } else { "/" };
            let text = utf8_percent_encode(&text, NOT_IN_PATHS).to_string();
            bench.check(&format!("{begin}{text}"), &text);
        });
}

#[test]
fn cursors() {
    bolero::check!()
        .with_type::<(Vec<u8>, u64, Vec<u8>)>()
        .for_each(|(name, users, text)| {
            if let Ok(segment) = Segment::new(&String::from_utf8_lossy(name)) {
                for sort in [Sort::Name, Sort::Users] {
                    let cursor = Cursor::at(sort, &segment, *users);
                    assert_eq!(Cursor::parse(&cursor.to_string(), sort), Some(cursor));
                }
            }
            let text = String::from_utf8_lossy(text);
            for sort in [Sort::Name, Sort::Users] {
                if let Some(cursor) = Cursor::parse(&text, sort) {
                    assert_eq!(Cursor::parse(&cursor.to_string(), sort), Some(cursor));
                }
            }
        });
}

/// Any names of segments are read back from both formats as they are, and add no sample.
#[test]
fn segment_metrics() {
    bolero::check!()
        .with_type::<(Vec<Vec<u8>>, u64)>()
        .for_each(|(inputs, users)| {
            let names = inputs.iter().map(|name| String::from_utf8_lossy(name));
            let names: BTreeSet<String> = names
                .filter_map(|name| Segment::new(&name).ok())
                .map(|segment| segment.as_str().to_owned())
                .collect();
            let metrics = SegmentMetrics {
                segments: names.iter().map(|name| sample(name, *users)).collect(),
                windows: Vec::new(),
                full_window: "14d".to_owned(),
                left_out: LeftOut::default(),
            };
            let open = metrics.clone().render().unwrap();
            assert!(open.ends_with("# EOF\n"));
            for text in [open, metrics.render_plain().unwrap()] {
                let lines = text.split('\n').filter_map(read_sample);
                let read: BTreeSet<(String, String)> = lines.collect();
                let value = users.to_string();
                let expected = names.iter().map(|name| (name.clone(), value.clone()));
                assert_eq!(read, expected.collect());
            }
        });
}

fn sample(segment: &str, users: u64) -> SegmentSample {
    SegmentSample {
        segment: segment.to_owned(),
        window: "14d".to_owned(),
        users,
        as_of: 0.0,
        flow: None,
    }
}

/// The name and the value of a line with the users of a segment, read character by character.
fn read_sample(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("headcount_segment_users{segment=\"")?;
    let (mut name, mut characters) = (String::new(), rest.chars());
    loop {
        match characters
            .next()
            .expect("the value of the label has no end")
        {
            '"' => break,
            '\\' => name.push(match characters.next() {
                Some('n') => '\n',
                Some(escaped @ ('"' | '\\')) => escaped,
                other => panic!("{other:?} is no escape: {line}"),
            }),
            other => name.push(other),
        }
    }
    let value = characters.as_str().strip_prefix(",window=\"14d\"} ");
    Some((name, value.expect("something follows the label").to_owned()))
}

const LIMIT: u64 = 1 << 16;

/// A compressed body is decompressed to the same bytes, a truncated one is refused, and no result exceeds the limit.
#[test]
fn compressed_bodies() {
    type Input = (Vec<Vec<u8>>, bool, Vec<Edit>, u32);
    bolero::check!()
        .with_type::<Input>()
        .for_each(|(members, gzip, edits, cut)| {
            let encoding = if *gzip {
                Encoding::Gzip
            } else {
                Encoding::Zstd
            };
            let mut packed = Vec::new();
            let mut borders = vec![0];
            for member in members {
                match gzip {
                    true => {
                        let mut encoder =
                            flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
                        encoder.write_all(member).unwrap();
                        encoder.finish().unwrap();
                    }
                    false => {
                        use async_compression::tokio::bufread::ZstdEncoder;
                        use futures::FutureExt;
                        use tokio::io::AsyncReadExt;
                        let mut encoder = ZstdEncoder::new(&**member);
                        let read = encoder.read_to_end(&mut packed).now_or_never();
                        read.unwrap().unwrap();
                    }
                }
                borders.push(packed.len());
            }
            let plain = members.concat();
            if !members.is_empty() {
                assert_eq!(encoding.decode(&packed, LIMIT).unwrap(), plain);
                let cut = *cut as usize % packed.len();
                let decoded = encoding.decode(&packed[..cut], LIMIT);
                assert!(decoded.is_err() || borders.contains(&cut), "cut at {cut}");
            }
            edit(&mut packed, edits);
            for body in [&packed, &plain] {
                if let Ok(decoded) = encoding.decode(body, LIMIT) {
                    assert!(decoded.len() as u64 <= LIMIT);
                }
            }
        });
}

/// A body does not depend on how it is split into chunks.
#[test]
fn pieces() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let runtime = std::panic::AssertUnwindSafe(&runtime);
    bolero::check!()
        .with_type::<(Vec<Vec<u8>>, u8)>()
        .for_each(move |(pieces, limit)| {
            let limit = u64::from(*limit) + 1;
            let limits = Limits::new(limit, Duration::from_secs(60));
            let whole = pieces.concat();
            let pieces = pieces
                .iter()
                .map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece.clone())));
            let headers = HeaderMap::new();
            let read = limits.read(&headers, futures::stream::iter(pieces));
            match runtime.block_on(read) {
                Ok(received) => assert_eq!(received.bytes, whole),
                Err(problem) => {
                    assert_eq!(problem.summary().0, 413);
                    assert!(whole.len() as u64 > limit);
                }
            }
        });
}
