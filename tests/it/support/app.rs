//! The service in this process, on its own port, with a clock that the test controls.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_compression::tokio::bufread::GzipDecoder;
use domain::store::PairStore;
use domain::store::model::Model;
use domain::{ManualClock, Timestamp};
use engine::Headcount;
use engine::Opened;
use headcount::config::Settings;
use headcount::wiring;
use http;
use http::auth::Auth;
use http::{Drained, Listeners};
use reqwest::Method;
use serde_json::Value;
use telemetry::Metrics;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The initial time of the clock: 2026-11-21T12:00:00Z.
pub const NOON: i64 = 1_795_262_400;
pub const NOON_TEXT: &str = "2026-11-21T12:00:00Z";

use super::switchable::SwitchableStore;

/// The service. It ends with the test's runtime, unless it is stopped before.
pub struct App {
    pub addr: SocketAddr,
    /// The address that serves only writes of pairs and reads of counts.
    pub public: SocketAddr,
    pub headcount: Arc<Headcount>,
    pub clock: Arc<ManualClock>,
    pub client: reqwest::Client,
    stop: CancellationToken,
    serving: JoinHandle<Drained>,
    _folder: TempDir,
}

impl App {
    /// The service with default settings.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The service with settings, given as strings by name.
    pub async fn start_with(given: &[(&str, &str)]) -> Self {
        Self::launch(given, |store| store).await
    }

    /// The service over a store that is not live and can be made unavailable.
    pub async fn start_switchable(given: &[(&str, &str)]) -> (Self, Arc<SwitchableStore>) {
        let mut switch = None;
        let app = Self::launch(given, |store| {
            let store = Arc::new(SwitchableStore::new(store));
            switch = Some(Arc::clone(&store));
            store
        });
        let app = app.await;
        (app, switch.unwrap())
    }

    /// The same over a store in memory that keeps the names of users.
    pub async fn start_switchable_with_names(
        given: &[(&str, &str)],
    ) -> (Self, Arc<SwitchableStore>) {
        let store = Arc::new(SwitchableStore::new(Arc::<Model>::default()));
        let app = Self::launch(given, |_| Arc::<SwitchableStore>::clone(&store));
        (app.await, store)
    }

    async fn launch(
        given: &[(&str, &str)],
        wrap: impl FnOnce(Arc<dyn PairStore>) -> Arc<dyn PairStore>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let spool_dir = folder.path().join("spool");
        let own = [
            ("data_dir", data_dir.to_str().unwrap()),
            ("spool_dir", spool_dir.to_str().unwrap()),
            ("refresh_mode", "off"),
        ];
        let settings = Settings::with(own.into_iter().chain(given.iter().copied())).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(NOON).unwrap()));
        let metrics = Arc::<Metrics>::default();
        let auth = Auth::open(&settings.auth, clock.clone(), Arc::clone(&metrics)).unwrap();
        let opened = wiring::open_store(&settings, &metrics).await.unwrap();
        let opened = Opened {
            store: wrap(opened.store),
            ..opened
        };
        let cache = wiring::open_cache(&settings).unwrap();
        let opened = Headcount::open_over(&settings, opened, cache, clock.clone(), metrics).await;
        let headcount = Arc::new(opened.unwrap());
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (internal, public) = (bind().await.unwrap(), bind().await.unwrap());
        let addr = internal.local_addr().unwrap();
        let public_addr = public.local_addr().unwrap();
        let listeners = Listeners {
            internal,
            public: Some(public),
        };
        let stop = CancellationToken::new();
        let (app, stopped) = (Arc::clone(&headcount), stop.clone());
        let serving = tokio::spawn(async move {
            http::serve(listeners, app, Arc::new(auth), &settings.http, stopped).await
        });
        Self {
            addr,
            public: public_addr,
            headcount,
            clock,
            client: reqwest::Client::new(),
            stop,
            serving,
            _folder: folder,
        }
    }

    /// Signals the service to stop, without waiting.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Whether serving has ended.
    pub fn has_stopped(&self) -> bool {
        self.serving.is_finished()
    }

    /// Stops the service and returns the result of the drain.
    pub async fn stop(self) -> Drained {
        self.stop.cancel();
        let drained = self.serving.await.unwrap();
        self.headcount.shut_down().await.unwrap();
        drained
    }

    /// Advances the clock.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// A request without a body.
    pub async fn send(&self, method: Method, target: &str) -> Response {
        self.send_with(method, target, &[]).await
    }

    /// A request with headers.
    pub async fn send_with(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Response {
        let url = format!("http://{}{target}", self.addr);
        let mut request = self.client.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Response::of(request.send().await.unwrap()).await
    }

    /// A request with a body.
    pub async fn send_body(
        &self,
        method: Method,
        target: &str,
        kind: &str,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let headers = [("content-type", kind)];
        self.send_body_with(method, target, &headers, body).await
    }

    /// A request with headers and a body.
    pub async fn send_body_with(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let url = format!("http://{}{target}", self.addr);
        let mut request = self.client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Response::of(request.send().await.unwrap()).await
    }

    /// GET.
    pub async fn get(&self, target: &str) -> Response {
        self.send(Method::GET, target).await
    }

    /// POST /v1/pairs.
    pub async fn post(&self, kind: &str, body: impl Into<reqwest::Body>) -> Response {
        self.post_with(&[("content-type", kind)], body).await
    }

    /// POST /v1/pairs with headers.
    pub async fn post_with(
        &self,
        headers: &[(&'static str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Response {
        self.send_body_with(Method::POST, "/v1/pairs", headers, body)
            .await
    }

    /// Records pairs of a user and a segment, seen now.
    pub async fn record<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.headcount.record(pairs).await.unwrap();
    }

    /// The users of a segment, given by its percent-encoded name.
    pub async fn users(&self, segment: &str) -> u64 {
        let response = self.get(&format!("/v1/segments/{segment}/count")).await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json["users"].as_u64().unwrap()
    }

    /// A raw connection.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends raw bytes, and returns everything that the service sends until it closes the connection.
    pub async fn send_raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        String::from_utf8_lossy(&response).into_owned()
    }

    /// The value of a metric's line, or 0 if the line is missing.
    pub async fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics").await.text;
        let found = text
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// A response with its complete body.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    /// Null if the body is not JSON.
    pub json: Value,
}

/// The codes of the sign-in form, which is for browsers and not part of the OpenAPI document.
const CODES_OF_THE_PAGE: [&str; 3] = ["cross_site", "insecure", "sign_in_refused"];

/// The OpenAPI document of the service.
fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| http::openapi().unwrap())
}

impl Response {
    pub async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        let text = match headers.get("content-encoding") {
            None => String::from_utf8_lossy(&body).into_owned(),
            Some(encoding) => {
                assert_eq!(encoding, "gzip");
                let mut text = String::new();
                let mut decoder = GzipDecoder::new(&body[..]);
                decoder.read_to_string(&mut text).await.unwrap();
                text
            }
        };
        assert!(
            headers.contains_key("x-request-id"),
            "{status} without a request id"
        );
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        // Errors for clients of InfluxDB have its own form.
        if status >= 400 && json["message"].is_string() {
            assert_eq!(headers["content-type"], "application/json", "{text}");
        } else if status >= 400 {
            assert_eq!(
                headers["content-type"], "application/problem+json",
                "{text}"
            );
            let code = json["code"].as_str().unwrap_or_default();
            let is_documented =
                CODES_OF_THE_PAGE.contains(&code) || document().contains(&format!("`{code}`"));
            // A response to HEAD has no body to check.
            assert!(text.is_empty() || is_documented, "undocumented: {text}");
        }
        Self {
            status,
            headers,
            text,
            json,
        }
    }

    /// The status and the code of a problem.
    pub fn problem(&self) -> (u16, &str) {
        (self.status, self.json["code"].as_str().unwrap_or(""))
    }

    /// The name and the users of each segment in a list.
    pub fn rows(&self) -> Vec<(&str, Option<u64>)> {
        let rows = self.json["segments"].as_array();
        let rows = rows.unwrap_or_else(|| panic!("{self:?}"));
        rows.iter()
            .map(|row| (row["segment"].as_str().unwrap(), row["users"].as_u64()))
            .collect()
    }

    /// The index and the code of each item's error.
    pub fn errors(&self) -> Vec<(u64, &str)> {
        let errors = self.json["errors"].as_array().unwrap();
        let error = |error: &'_ Value| error["index"].as_u64().unwrap();
        errors
            .iter()
            .map(|found| (error(found), found["code"].as_str().unwrap()))
            .collect()
    }
}
