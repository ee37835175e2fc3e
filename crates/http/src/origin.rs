//! Origin checks: protection of a service without tokens against web pages (DNS rebinding, CSRF).
//!
//! Without tokens the loopback address is the only protection, and it does not stop web pages that are open on this
//! machine. A page can make its own name resolve to 127.0.0.1 (DNS rebinding) and then read responses as same-origin, so
//! the `Host` must be a loopback name. A page can also send a POST without a CORS preflight (CSRF), so a request that
//! changes something must not come from another site.

use std::net::IpAddr;

use warp::host::Authority;
use warp::http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use warp::http::{StatusCode, Uri};

use super::problem::Problem;
use crate::auth::Auth;
use crate::settings::Cors;

/// The origin of a request as the browser reports it: `Sec-Fetch-Site` on trustworthy connections, `Origin` on all
/// requests but GET and HEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestOrigin {
    /// A page of this service.
    Same,
    /// A page of another or an unknown origin.
    Cross,
    /// No page: a program, or a person who typed the address.
    Direct,
}

/// The checks of a service without tokens.
#[derive(Debug, Clone)]
pub(super) struct OriginPolicy {
    /// Whether requests need no token.
    is_open: bool,
    /// Whether they need none because only this machine is served.
    loopback_only: bool,
    /// Other origins whose pages may send requests that change something.
    origins: Vec<String>,
}

impl OriginPolicy {
    pub(super) fn new(auth: &Auth, cors: &Cors) -> Self {
        Self {
            is_open: !auth.is_on(),
            loopback_only: auth.is_for_loopback_only(),
            origins: match cors {
                Cors::Of(origins) => origins.clone(),
                // `Any` lets every page read, but no page of another origin write.
                Cors::Off | Cors::Any => Vec::new(),
            },
        }
    }

    /// Refuses a request that an unknown web page may have sent.
    pub(super) fn check(
        &self,
        is_probe: bool,
        method: &str,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        // With tokens there is no risk: no page of another site can make a browser send the header or cookie of a token.
        if !self.is_open {
            return Ok(());
        }
        // Load balancers and supervisors use their own host names for probes, whose responses have no data.
        if self.loopback_only && !is_probe && !is_for_loopback(uri, headers) {
            return Err(misdirected());
        }
        if matches!(method, "GET" | "HEAD") {
            return Ok(());
        }
        let host = uri.authority().cloned().or_else(|| host(headers));
        match request_origin(host.as_ref(), headers) {
            RequestOrigin::Same | RequestOrigin::Direct => Ok(()),
            RequestOrigin::Cross if self.allows_origin(headers) => Ok(()),
            RequestOrigin::Cross => Err(cross_site()),
        }
    }

    fn allows_origin(&self, headers: &HeaderMap) -> bool {
        let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
        let mut origins = self.origins.iter();
        origin.is_some_and(|origin| origins.any(|known| known.as_bytes() == origin))
    }
}

/// The origin of a request to `host`.
pub(super) fn request_origin(host: Option<&Authority>, headers: &HeaderMap) -> RequestOrigin {
    // A value that is not a string is no origin of ours.
    let text = |name| {
        let value: Option<&HeaderValue> = headers.get(name);
        value.map(|value| value.to_str().unwrap_or_default())
    };
    match (text("sec-fetch-site"), text("origin")) {
        (Some("same-origin"), _) => RequestOrigin::Same,
        (Some("none"), _) | (None, None) => RequestOrigin::Direct,
        (Some(_), _) => RequestOrigin::Cross,
        (None, Some(origin)) => {
            let from = origin.split_once("://").map(|(_, from)| from);
            let is_own = from
                .zip(host)
                .is_some_and(|(from, host)| from.eq_ignore_ascii_case(host.as_str()));
            match is_own {
                true => RequestOrigin::Same,
                false => RequestOrigin::Cross,
            }
        }
    }
}

/// Whether `host` is a loopback address or name. Browsers resolve `*.localhost` to loopback too (RFC 6761).
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = host.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether the request names at least one host, and only loopback hosts. HTTP/2 has the host in the target, HTTP/1 in
/// one `Host` header, the absolute form for proxies in both.
fn is_for_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let target = uri.authority().map(|target| is_loopback(target.host()));
    match (target, headers.get_all(HOST).iter().count()) {
        (Some(own), 0) => own,
        (target, 1) => {
            let named = host(headers).is_some_and(|host| is_loopback(host.host()));
            named && target != Some(false)
        }
        _ => false,
    }
}

fn host(headers: &HeaderMap) -> Option<Authority> {
    headers.get(HOST)?.to_str().ok()?.parse().ok()
}

fn misdirected() -> Problem {
    let detail = "without tokens this service only accepts a loopback name as host, such as localhost or 127.0.0.1, to be \
                  safe from web pages; set `tokens_file` or `jwt_key`, or `auth = \"off\"`";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail)
}

pub(super) fn cross_site() -> Problem {
    let detail = "a page of another site must not send this request";
    Problem::new(StatusCode::FORBIDDEN, "cross_site", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn browsers_say_who_sends() {
        let host: Authority = "a:8080".parse().unwrap();
        for (headers, expected) in [
            (&[][..], RequestOrigin::Direct),
            (&[("origin", "http://a:8080")], RequestOrigin::Same),
            (&[("origin", "http://A:8080")], RequestOrigin::Same),
            (&[("origin", "http://a:8081")], RequestOrigin::Cross),
            (&[("origin", "http://evil")], RequestOrigin::Cross),
            (&[("origin", "null")], RequestOrigin::Cross),
            (&[("origin", "")], RequestOrigin::Cross),
            (&[("sec-fetch-site", "none")], RequestOrigin::Direct),
            (&[("sec-fetch-site", "")], RequestOrigin::Cross),
            (
                &[
                    ("origin", "http://a:8080"),
                    ("sec-fetch-site", "cross-site"),
                ],
                RequestOrigin::Cross,
            ),
            (
                &[("origin", "http://a:8080"), ("sec-fetch-site", "same-site")],
                RequestOrigin::Cross,
            ),
            // A proxy may give the service another host name.
            (
                &[
                    ("origin", "https://front"),
                    ("sec-fetch-site", "same-origin"),
                ],
                RequestOrigin::Same,
            ),
        ] {
            assert_eq!(
                request_origin(Some(&host), &given(headers)),
                expected,
                "{headers:?}"
            );
        }
        let own = given(&[("origin", "http://a:8080")]);
        assert_eq!(
            request_origin(None, &own),
            RequestOrigin::Cross,
            "without a host no origin is the same"
        );
    }

    #[test]
    fn only_loopback_names_are_this_machines() {
        for (target, hosts, expected) in [
            ("/", &["localhost:8080"][..], true),
            ("/", &["LOCALHOST"], true),
            ("/", &["127.0.0.1:1"], true),
            ("/", &["127.8.8.8"], true),
            ("/", &["[::1]:8080"], true),
            ("/", &["[::ffff:127.0.0.1]"], true),
            ("/", &["app.localhost"], true),
            ("/", &["evil.example"], false),
            ("/", &["localhost.evil.example"], false),
            ("/", &["127.0.0.1.evil.example"], false),
            ("/", &["0.0.0.0"], false),
            ("/", &["192.168.0.7"], false),
            ("/", &["evillocalhost"], false),
            ("/", &[""], false),
            ("/", &[], false),
            ("/", &["localhost", "localhost"], false),
            ("http://localhost/", &[], true),
            ("http://evil.example/", &[], false),
            ("http://evil.example/", &["localhost"], false),
            ("http://localhost/", &["evil.example"], false),
        ] {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let is_for_us = is_for_loopback(&target.parse().unwrap(), &given(&headers));
            assert_eq!(is_for_us, expected, "{target} {hosts:?}");
        }
    }
}
