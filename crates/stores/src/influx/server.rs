//! HTTP requests to an InfluxDB server: URLs, authorisation, timeouts and error responses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Body, Client, Method, RequestBuilder, Response, Url};

use super::error::{Error, ErrorResponse};
use super::options::InfluxOptions;
use domain::store::StoreError;

/// The maximum number of bytes that are read of an error response.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// A server, with the token and the organisation for its requests.
#[derive(Debug, Clone)]
pub(super) struct Server {
    client: Client,
    base: Url,
    org: String,
    trace_headers: fn() -> HashMap<String, String>,
}

impl Server {
    /// A client for `options`. Nothing is sent yet.
    pub(super) fn new(options: &InfluxOptions) -> Result<Self, StoreError> {
        let mut token =
            HeaderValue::try_from(format!("Token {}", options.token)).map_err(|_| {
                StoreError::Rejected(
                    "influx_token has a character that is not valid in a header".into(),
                )
            })?;
        token.set_sensitive(true);
        let base = base_url(&options.url)?;
        let mut client = Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, token)]))
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            // A redirect would turn a POST into a GET.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&base) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| {
            StoreError::Unavailable(format!("can't create an HTTP client: {error}"))
        })?;
        Ok(Self {
            client,
            base,
            org: options.org.clone(),
            trace_headers: options.trace_headers,
        })
    }

    /// A request to `path` below the base URL. The base URL may have a path.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!(
            "{}/{path}",
            self.base.path().trim_end_matches('/')
        ));
        let mut request = self.client.request(method, url);
        for (name, value) in (self.trace_headers)() {
            request = request.header(name, value);
        }
        request
    }

    /// A request to `path` in the store's organisation.
    pub(super) fn org_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path)
            .query(&[("org", self.org.as_str())])
    }

    /// Writes lines to `bucket`. Waits at most `within` for the response.
    pub(super) async fn write(
        &self,
        bucket: &str,
        lines: impl Into<Body>,
        within: Duration,
    ) -> Result<(), Error> {
        let request = self
            .org_request(Method::POST, "api/v2/write")
            .query(&[("bucket", bucket), ("precision", "ns")])
            .body(lines);
        expect_no_content(request, within).await
    }
}

/// Parses `influx_url`.
pub(super) fn base_url(text: &str) -> Result<Url, StoreError> {
    parse_url(text)
        .map_err(|what| StoreError::Rejected(format!("influx_url must be {INFLUX_URL}: {what}")))
}

/// A description of a valid server URL, for error messages.
pub const INFLUX_URL: &str =
    "a URL such as http://host:8086 or https://host/path, without user, query and fragment";

/// Parses a server's URL, or returns what is wrong with it.
pub fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("its scheme is {}", url.scheme()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has a query or a fragment".to_owned());
    }
    // The client would send the user's credentials instead of the token.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it contains a user name or password".to_owned());
    }
    Ok(url)
}

/// Whether the server is on this machine. The proxy of `HTTP_PROXY` can't reach such a server, and must not get the
/// token. For other hosts the client respects `NO_PROXY`.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: IpAddr| address.is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

/// Sends a request and waits at most `within` for the head of the response.
pub(super) async fn send(request: RequestBuilder, within: Duration) -> Result<Response, Error> {
    match tokio::time::timeout(within, request.send()).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(Error::TimedOut(within)),
    }
}

/// Sends a request whose response has no content if it succeeds. Waits at most `within` for the response.
pub(super) async fn expect_no_content(
    request: RequestBuilder,
    within: Duration,
) -> Result<(), Error> {
    let done = async {
        let response = send(request, within).await?;
        match response.status().as_u16() {
            204 => Ok(()),
            _ => Err(refusal(response).await),
        }
    };
    let done = tokio::time::timeout(within, done).await;
    done.unwrap_or(Err(Error::TimedOut(within)))
}

/// Converts an error response to an error.
pub(super) async fn refusal(mut response: Response) -> Error {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    let mut body = Vec::new();
    // If the rest of the body can't be read, the reason is less detailed.
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_REFUSAL_BYTES {
            break;
        }
    }
    Error::Status(Box::new(ErrorResponse::of_body(status, &body, retry_after)))
}

/// `Retry-After` in seconds. A date is ignored, because the clock skew of two machines may be larger than the delay.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_of(base: &str) -> String {
        let options = InfluxOptions {
            url: base.into(),
            ..InfluxOptions::for_tests()
        };
        let request = Server::new(&options)
            .unwrap()
            .org_request(Method::POST, "api/v2/write")
            .build()
            .unwrap();
        request.url().to_string()
    }

    #[test]
    fn a_path_in_the_url_is_kept() {
        assert_eq!(url_of("http://h:1"), "http://h:1/api/v2/write?org=o");
        assert_eq!(url_of("http://h:1/"), "http://h:1/api/v2/write?org=o");
        assert_eq!(
            url_of("https://h/in/flux"),
            "https://h/in/flux/api/v2/write?org=o"
        );
        assert_eq!(
            url_of("https://h/in/flux/"),
            "https://h/in/flux/api/v2/write?org=o"
        );
    }

    #[test]
    fn a_bad_url_is_named() {
        for bad in [
            "",
            "localhost:8086",
            "ftp://h",
            "http://h/?a=b",
            "http://u:p@h",
        ] {
            let error = base_url(bad).unwrap_err().to_string();
            assert!(error.contains("influx_url"), "{error}");
        }
    }

    #[test]
    fn retry_after_is_seconds() {
        let read = |value: &'static str| {
            retry_after(&HeaderMap::from_iter([(
                RETRY_AFTER,
                HeaderValue::from_static(value),
            )]))
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn loopback_is_told_by_address_and_name() {
        for (url, is) in [
            ("http://127.0.0.1:8086", true),
            ("http://127.9.9.9", true),
            ("http://localhost:8086", true),
            ("https://[::1]:8086", true),
            ("http://influxdb:8086", false),
            ("http://127.0.0.1.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&base_url(url).unwrap()), is, "{url}");
        }
    }
}
