//! Which page a request comes from, and which requests a service without tokens takes from browsers.
//!
//! Without tokens the loopback address is the only protection, and every web page that is open on this machine is
//! behind it. A page can make its own name resolve to 127.0.0.1 (DNS rebinding) and then reads answers as its own: so
//! the `Host` must be a loopback name. A page can also post to us blindly, for which browsers ask no permission: so
//! whatever changes something must not come from another site.

use std::net::IpAddr;

use warp::host::Authority;
use warp::http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use warp::http::{StatusCode, Uri};

use super::problem::Problem;
use super::route::Route;
use crate::auth::Auth;
use crate::settings::Cors;

/// Where a request comes from, as far as browsers say: `Sec-Fetch-Site` where they trust the connection, `Origin` on
/// everything but GET and HEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A page of this service.
    Own,
    /// A page of another origin, or one that does not say which.
    Other,
    /// No page but a program, or a person who typed an address.
    Program,
}

/// What a service without tokens checks.
#[derive(Debug, Clone)]
pub(super) struct Visitors {
    /// Whether nobody is asked for a token.
    is_open: bool,
    /// Whether that is so because only this machine is served.
    loopback_only: bool,
    /// Origins whose pages may change something.
    origins: Vec<String>,
}

impl Visitors {
    pub(super) fn new(auth: &Auth, cors: &Cors) -> Self {
        Self {
            is_open: !auth.is_on(),
            loopback_only: auth.is_for_loopback_only(),
            origins: match cors {
                Cors::Of(origins) => origins.clone(),
                // Any page may read then; that does not let any page write.
                Cors::Off | Cors::Any => Vec::new(),
            },
        }
    }

    /// Refuses what a web page may have sent that this service does not know.
    pub(super) fn admit(
        &self,
        route: Route,
        method: &str,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        // A token comes in a header that no other site's page can have a browser send.
        if !self.is_open {
            return Ok(());
        }
        // Load balancers and supervisors ask under names of their own; there is nothing to read there but a state.
        let is_probe = matches!(route, Route::Health | Route::Ready);
        if self.loopback_only && !is_probe && !is_for_loopback(uri, headers) {
            return Err(misdirected());
        }
        if matches!(method, "GET" | "HEAD") {
            return Ok(());
        }
        let host = uri.authority().cloned().or_else(|| host(headers));
        match sender(host.as_ref(), headers) {
            Sender::Own | Sender::Program => Ok(()),
            Sender::Other if self.knows_origin(headers) => Ok(()),
            Sender::Other => Err(cross_site()),
        }
    }

    fn knows_origin(&self, headers: &HeaderMap) -> bool {
        let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
        let mut origins = self.origins.iter();
        origin.is_some_and(|origin| origins.any(|known| known.as_bytes() == origin))
    }
}

/// Who sent a request to `host`.
pub(super) fn sender(host: Option<&Authority>, headers: &HeaderMap) -> Sender {
    // What is no text names no page of ours.
    let text = |name| {
        let value: Option<&HeaderValue> = headers.get(name);
        value.map(|value| value.to_str().unwrap_or_default())
    };
    match (text("sec-fetch-site"), text("origin")) {
        (Some("same-origin"), _) => Sender::Own,
        (Some("none"), _) | (None, None) => Sender::Program,
        (Some(_), _) => Sender::Other,
        (None, Some(origin)) => {
            let from = origin.split_once("://").map(|(_, from)| from);
            let is_own = from
                .zip(host)
                .is_some_and(|(from, host)| from.eq_ignore_ascii_case(host.as_str()));
            match is_own {
                true => Sender::Own,
                false => Sender::Other,
            }
        }
    }
}

/// Whether a host is this machine's own name for itself. Browsers resolve `*.localhost` here too (RFC 6761).
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = host.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether each name that the request gives the service is a loopback one, and there is one. HTTP/2 has it in the
/// target, HTTP/1 in one `Host`, proxies' form in both.
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
    let detail = "without tokens this service answers only under a loopback name, such as localhost or 127.0.0.1: \
                  a web page may be behind any other; set `tokens_file` or `jwt_key`, or state `auth = \"off\"`";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail)
}

pub(super) fn cross_site() -> Problem {
    let detail = "this must not be sent by a page of another site";
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
            (&[][..], Sender::Program),
            (&[("origin", "http://a:8080")], Sender::Own),
            (&[("origin", "http://A:8080")], Sender::Own),
            (&[("origin", "http://a:8081")], Sender::Other),
            (&[("origin", "http://evil")], Sender::Other),
            (&[("origin", "null")], Sender::Other),
            (&[("origin", "")], Sender::Other),
            (&[("sec-fetch-site", "none")], Sender::Program),
            (&[("sec-fetch-site", "")], Sender::Other),
            (
                &[
                    ("origin", "http://a:8080"),
                    ("sec-fetch-site", "cross-site"),
                ],
                Sender::Other,
            ),
            (
                &[("origin", "http://a:8080"), ("sec-fetch-site", "same-site")],
                Sender::Other,
            ),
            // A proxy may have given the service another name.
            (
                &[
                    ("origin", "https://front"),
                    ("sec-fetch-site", "same-origin"),
                ],
                Sender::Own,
            ),
        ] {
            assert_eq!(
                sender(Some(&host), &given(headers)),
                expected,
                "{headers:?}"
            );
        }
        let own = given(&[("origin", "http://a:8080")]);
        assert_eq!(
            sender(None, &own),
            Sender::Other,
            "without a host nothing is ours"
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
