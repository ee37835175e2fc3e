//! The HTTP client of a running service: URLs, timeouts, responses and errors.

mod address;
mod errors;
mod lines;

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::args::Target;
use super::output::sanitized;
use super::variables::Variables;
use crate::config::read_secret;
pub(super) use address::valid;
use address::{authorization, base_url, is_loopback};
use domain::Segment;
pub(super) use errors::{ClientError, Refusal};
use errors::{Problem, root_cause};
pub(super) use lines::Lines;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the service takes for any single response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// A recount of all segments or a large archive may take long.
const WORK_TIMEOUT: Duration = Duration::from_mins(30);
/// The maximum size of a response in bytes, far above any that the service sends.
const MAX_RESPONSE: usize = 64 << 20;

/// Requests to one service.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
}

/// The token from the flags or, if none is given there, from the variables.
fn token(target: &Target, variables: &Variables) -> Result<Option<String>, Failure> {
    let file = match (&target.token, &target.token_file) {
        (Some(token), _) => return Ok(Some(token.clone())),
        (None, Some(file)) => Some(file.clone()),
        (None, None) => {
            let token = variables.get("HEADCOUNT_TOKEN")?;
            let file = variables.get("HEADCOUNT_TOKEN_FILE")?.map(PathBuf::from);
            if token.is_some() && file.is_some() {
                return Err(Failure::usage(
                    "HEADCOUNT_TOKEN and HEADCOUNT_TOKEN_FILE are both given: give one",
                ));
            }
            if token.is_some() {
                return Ok(token);
            }
            file
        }
    };
    let read = |file: PathBuf| {
        let named = |problem| format!("the token's file {}, which {problem}", file.display());
        read_secret(&file).map_err(|problem| Failure::usage(named(problem)))
    };
    file.map(read).transpose()
}

impl Client {
    /// A client for the service that the flags or variables specify.
    pub(super) fn new(target: &Target, variables: &Variables) -> Result<Self, Failure> {
        variables.check_spelling()?;
        let url = match &target.url {
            Some(url) => url.clone(),
            None => variables
                .get("HEADCOUNT_URL")?
                .unwrap_or(DEFAULT_URL.into()),
        };
        let token = token(target, variables)?;
        Self::to(&url, token.as_deref())
    }

    /// A client for the service at `url`.
    pub(super) fn to(url: &str, token: Option<&str>) -> Result<Self, Failure> {
        let base = base_url(url)?;
        let authorization = token.map(authorization).transpose()?;
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(RESPONSE_TIMEOUT)
            // A redirected POST becomes a GET, and the token could reach another host. A redirect is an error instead.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("headcount/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            // A proxy can't reach the loopback addresses of this machine.
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|error| Failure::failed(format!("can't set up HTTP: {error}")))?;
        Ok(Self {
            http,
            base,
            authorization,
        })
    }

    /// GETs JSON from the path of `segments`, each of which may contain any character.
    pub(super) async fn get(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, ClientError> {
        let request = self.request(Method::GET, segments).query(query);
        self.json(request).await
    }

    /// The same as CSV.
    pub(super) async fn get_csv(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<String, ClientError> {
        let request = self.request(Method::GET, segments).query(query);
        self.csv(request).await
    }

    /// GETs a resource of `segment`, such as its `count`.
    pub(super) async fn get_of(
        &self,
        segment: &Segment,
        what: &str,
        query: &[(&str, &str)],
    ) -> Result<Value, ClientError> {
        let request = self.request_of(Method::GET, segment, &[what]);
        self.json(request.query(query)).await
    }

    /// The same as CSV.
    pub(super) async fn get_csv_of(
        &self,
        segment: &Segment,
        what: &str,
        query: &[(&str, &str)],
    ) -> Result<String, ClientError> {
        let request = self.request_of(Method::GET, segment, &[what]);
        self.csv(request.query(query)).await
    }

    /// GETs lines about `segment`, which may arrive for as long as it takes.
    pub(super) async fn lines_of(
        &self,
        segment: &Segment,
        what: &str,
        query: &[(&str, &str)],
    ) -> Result<Lines<'_>, ClientError> {
        let request = self.request_of(Method::GET, segment, &[what]);
        Lines::of(self, request.query(query)).await
    }

    /// A request about `segment` itself, or about what is at `path` below it, such as one of its users.
    fn request_of(&self, method: Method, segment: &Segment, path: &[&str]) -> RequestBuilder {
        let mut query = Vec::new();
        // By RFC 3986 clients and proxies remove these from a path, even if percent-encoded.
        let mut place = |name, value| match value {
            "." | ".." => {
                query.push((name, value));
                "-"
            }
            _ => value,
        };
        let mut whole = vec!["v1", "segments", place("segment", segment.as_str())];
        whole.extend(path.iter().map(|part| place("user_id", part)));
        self.request(method, &whole).query(&query)
    }

    /// POSTs a question, and returns the JSON of the response.
    pub(super) async fn post(
        &self,
        segments: &[&str],
        question: &Value,
    ) -> Result<Value, ClientError> {
        let request = self.request(Method::POST, segments).json(question);
        self.json(request).await
    }

    /// The same as CSV.
    pub(super) async fn post_for_csv(
        &self,
        segments: &[&str],
        question: &Value,
    ) -> Result<String, ClientError> {
        let request = self.request(Method::POST, segments).json(question);
        self.csv(request).await
    }

    /// Sends a request about `segment` itself, or about what is at `path` below it, and returns the JSON of the response.
    pub(super) async fn on(
        &self,
        method: Method,
        segment: &Segment,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let request = self.request_of(method, segment, path);
        self.json(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// POSTs an empty body to start work that may take long, and returns the JSON of the response.
    pub(super) async fn post_work(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, ClientError> {
        let request = self.request(Method::POST, segments).query(query);
        self.json(request.timeout(WORK_TIMEOUT)).await
    }

    /// PUTs an empty body, and returns the JSON of the response.
    pub(super) async fn put(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, ClientError> {
        let request = self.request(Method::PUT, segments).query(query);
        self.json(request).await
    }

    /// POSTs lines of pairs.
    pub(super) async fn post_pairs(&self, lines: Bytes) -> Result<Value, ClientError> {
        let request = self
            .request(Method::POST, &["v1", "pairs"])
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(lines);
        self.json(request).await
    }

    /// The error for a response with unexpected content.
    pub(super) fn unexpected(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unexpected {
            base: self.base().to_owned(),
            reason: sanitized(&reason.to_string()),
        }
    }

    /// Whether requests carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// The service's address, for messages.
    pub(super) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let request = self.http.request(method, self.url(segments));
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // `extend` percent-encodes slashes and percent signs, so that each stays one segment.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, ClientError> {
        let (_, body) = self.success(request).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected {
            base: self.base().to_owned(),
            reason: format!("not JSON ({error})"),
        })
    }

    async fn csv(&self, request: RequestBuilder) -> Result<String, ClientError> {
        let (headers, body) = self.success(request.header(ACCEPT, "text/csv")).await?;
        let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        // A service of version 0.1.0 returns JSON.
        let is_csv = kind.is_some_and(|kind| kind.starts_with(b"text/csv"));
        match String::from_utf8(body.into()) {
            Ok(text) if is_csv => Ok(text),
            _ => Err(self.unexpected(&"not CSV")),
        }
    }

    /// The headers and the body of a response with a status of success.
    async fn success(&self, request: RequestBuilder) -> Result<(HeaderMap, BytesMut), ClientError> {
        let response = request
            .send()
            .await
            .map_err(|error| self.send_error(&error))?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let headers = response.headers().clone();
        let body = self.body(response).await?;
        if status.is_success() {
            return Ok((headers, body));
        }
        Err(self.refused(status, retry_after, &headers, &body))
    }

    /// The error of a response with an error status.
    fn refused(
        &self,
        status: StatusCode,
        retry_after: Option<Duration>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> ClientError {
        let body: Option<Value> = serde_json::from_slice(body).ok();
        let problem = body
            .as_ref()
            .and_then(|body| Problem::deserialize(body).ok());
        let (code, detail) = match problem {
            Some(problem) => (problem.code, problem.detail.or(problem.title)),
            None => (None, None),
        };
        let location = headers.get(reqwest::header::LOCATION);
        let moved = location.and_then(|to| to.to_str().ok());
        let detail = detail.or_else(|| moved.map(|to| format!("it points to {to}; give that URL")));
        ClientError::Refused {
            base: self.base().to_owned(),
            refusal: Box::new(Refusal {
                status,
                code: code.map(|code| sanitized(&code)),
                detail: detail.map(|detail| sanitized(&detail)),
                retry_after,
                body,
            }),
        }
    }

    async fn body(&self, mut response: Response) -> Result<BytesMut, ClientError> {
        let mut body = BytesMut::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|error| self.send_error(&error))?
        {
            if body.len() + part.len() > MAX_RESPONSE {
                return Err(ClientError::Unexpected {
                    base: self.base().to_owned(),
                    reason: format!("more than {MAX_RESPONSE} bytes"),
                });
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    fn send_error(&self, error: &reqwest::Error) -> ClientError {
        let base = self.base().to_owned();
        let reason = match error.is_timeout() {
            true => "timeout".to_owned(),
            false => root_cause(error),
        };
        match error.is_connect() {
            true => ClientError::Unreachable { base, reason },
            false => ClientError::NoResponse { base, reason },
        }
    }
}

/// The `Retry-After` header in seconds, as the service sends it. A date is ignored, and the client's own backoff applies.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test_server::TestServer;
    use domain::percent;
    use warp::Filter;
    use warp::http::Response;

    fn json(status: u16, text: &str) -> Response<String> {
        let response = Response::builder().status(status);
        response.body(text.to_owned()).unwrap()
    }

    async fn error(client: &Client) -> String {
        client.get(&["x"], &[]).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn every_segment_name_arrives_as_it_is() {
        // Echoes the path as the server sees it, still encoded.
        let server = TestServer::start(warp::path::full().map(|path: warp::path::FullPath| {
            json(200, &serde_json::to_string(path.as_str()).unwrap())
        }))
        .await;
        let client = Client::to(&format!("{}/behind/", server.url), None).unwrap();
        for name in [
            "sports",
            "../../etc",
            "%2F",
            "a/b",
            "/",
            "..a",
            "...",
            "%2e%2e",
            "🏀",
            "100%",
            "a b+c",
            "?x=1#y",
            ";",
            "\\x",
            "Спорт",
            "\"<>`{}|^[]",
            "&=,:@!$'()*~",
        ] {
            let segment = valid(name).unwrap();
            let path = client.get_of(&segment, "count", &[]).await.unwrap();
            let path = path.as_str().unwrap();
            let parts: Vec<_> = path.split('/').collect();
            assert_eq!(parts.len(), 6, "{name}: {path}");
            assert_eq!(parts[1..4], ["behind", "v1", "segments"]);
            let arrived = percent::decode(parts[4]).unwrap();
            assert_eq!(arrived.decode_utf8().unwrap(), name);
        }
        for name in ["", " a"] {
            assert!(matches!(valid(name), Err(Failure::Usage(_))));
        }
        // Its name is in the query, which this server does not echo.
        let segment = valid("..").unwrap();
        let path = client.get_of(&segment, "count", &[]).await.unwrap();
        assert_eq!(path, "/behind/v1/segments/-/count");
    }

    #[tokio::test]
    async fn the_token_travels_in_a_header() {
        let server = TestServer::start(
            warp::header("authorization")
                .map(|value: String| json(200, &serde_json::to_string(&value).unwrap())),
        )
        .await;
        let target = Target {
            url: Some(server.url.clone()),
            token: None,
            token_file: None,
        };
        let variables = Variables::new([("HEADCOUNT_TOKEN".into(), "t0p".into())]);
        let client = Client::new(&target, &variables).unwrap();
        assert_eq!(client.get(&["x"], &[]).await.unwrap(), "Bearer t0p");
        let debug = format!("{client:?}");
        assert!(!debug.contains("t0p"), "{debug}");
        assert!(Client::to(&server.url, Some("a\nb")).is_err());
    }

    #[tokio::test]
    async fn refusals_are_told_with_their_reason() {
        let problem = r#"{"type":"about:blank","title":"Bad Request","status":400,"code":"invalid_window","detail":"window must be\u001b[2J a multiple"}"#;
        let server = TestServer::start(warp::any().map(move || json(400, problem))).await;
        let client = Client::to(&server.url, None).unwrap();
        assert_eq!(
            error(&client).await,
            format!(
                "{} responded with 400 invalid_window: window must be\u{fffd}[2J a multiple",
                server.url
            )
        );
        let server = TestServer::start(warp::any().map(|| json(401, "no"))).await;
        let client = Client::to(&server.url, None).unwrap();
        assert!(error(&client).await.ends_with(
            "responded with 401 Unauthorized; give --token-file, HEADCOUNT_TOKEN_FILE or HEADCOUNT_TOKEN"
        ));
        let server = TestServer::start(warp::any().map(|| json(200, "<html>"))).await;
        let client = Client::to(&server.url, None).unwrap();
        assert!(error(&client).await.contains("an unexpected response"));
        let server = TestServer::start(
            warp::any()
                .map(|| warp::reply::with_header(json(302, ""), "location", "https://elsewhere/")),
        )
        .await;
        let client = Client::to(&server.url, None).unwrap();
        assert!(
            error(&client)
                .await
                .ends_with("302 Found: it points to https://elsewhere/; give that URL")
        );
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_told_at_once() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let client = Client::to(&url, None).unwrap();
        assert_eq!(
            error(&client).await,
            format!("cannot reach {url}: connection refused; is `headcount serve` running?")
        );
    }

    #[test]
    fn wrong_urls_are_refused() {
        for url in [
            "",
            "localhost:8080",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "8080",
        ] {
            assert!(
                matches!(Client::to(url, None), Err(Failure::Usage(_))),
                "{url}"
            );
        }
        assert!(Client::to("https://[::1]:8080/x", None).is_ok());
    }
}
