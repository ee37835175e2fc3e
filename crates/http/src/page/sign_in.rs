//! `/sign-in` and `/sign-out`: a form that exchanges a token for a session of the page, and the end of the session.
//!
//! Another site could make a browser post these forms (CSRF), but it can't forge `Origin` or `Sec-Fetch-Site`. So a form is
//! accepted only if the browser reports that it was sent by a page of this service.

use askama::Template;
use bytes::Buf;
use futures::Stream;
use warp::host::Authority;
use warp::http::header::{ACCEPT, HeaderMap, HeaderValue, LOCATION, ORIGIN, SET_COOKIE};
use warp::http::{StatusCode, Uri};
use warp::reply::{Reply, Response};

use super::{Pages, Shell, html};
use crate::cookie;
use crate::origin::{RequestOrigin, is_loopback, request_origin};
use crate::path::encode;
use crate::problem::Problem;
use crate::query::Query;
use crate::session::MAX_TOKEN;

/// Largest form, in bytes. A form with a token is smaller.
pub(super) const MAX_FORM: u64 = 16 * 1024;
/// Longest address to return to after sign-in. A longer one is replaced by `/`.
const MAX_NEXT: usize = 1_024;

#[derive(Template)]
#[template(path = "sign-in.html")]
struct Page {
    shell: Shell,
    next: String,
    trouble: Option<String>,
}

/// A page of this service that sent a form.
#[derive(Debug, PartialEq, Eq)]
struct OwnPage {
    /// Whether it was loaded over TLS.
    secure: bool,
}

/// Whether the request is a browser's navigation, which accepts HTML.
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Redirects to the sign-in form, which returns to `uri` after sign-in.
pub(crate) fn first(uri: &Uri) -> Response {
    let next = uri.path_and_query().map_or("/", |next| next.as_str());
    see(&format!("/sign-in?next={}", encode(next)))
}

pub(super) fn form(pages: &Pages, query: &Query) -> Result<Response, Problem> {
    let next = next(query.text("next")?);
    if !pages.authorizer.is_on() {
        return Ok(see(&next));
    }
    shown(StatusCode::OK, next, None)
}

fn shown(status: StatusCode, next: String, trouble: Option<String>) -> Result<Response, Problem> {
    let page = Page {
        shell: Shell::plain(),
        next,
        trouble,
    };
    html(status, &page)
}

pub(super) async fn enter<B: Buf, E>(
    pages: &Pages,
    host: Option<&Authority>,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, E>>,
) -> Result<Response, Problem> {
    let own = own_page(host, headers)?;
    let body = pages.forms.read(headers, body).await?;
    let mut fields = form_urlencoded::parse(&body.bytes);
    let token = fields.find(|(name, _)| name == "token");
    let token = token.map_or_else(String::new, |(_, value)| value.trim().to_owned());
    let mut fields = form_urlencoded::parse(&body.bytes);
    let next = next(
        fields
            .find(|(name, _)| name == "next")
            .map(|(_, value)| value)
            .as_deref(),
    );
    let let_in = may_sign_in(&own, host).and_then(|()| cookie_for(pages, &token, own.secure));
    match let_in {
        Ok(cookie) => {
            let mut response = see(&next);
            response.headers_mut().append(SET_COOKIE, cookie);
            Ok(response)
        }
        Err(problem) if wants_html(headers) => {
            let trouble = problem.detail().to_owned();
            shown(StatusCode::FORBIDDEN, next, Some(trouble))
        }
        Err(problem) => Err(problem),
    }
}

pub(super) fn leave(
    pages: &Pages,
    host: Option<&Authority>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    own_page(host, headers)?;
    // Ends the session too, so that a copy of the cookie is invalid.
    pages.authorizer.sign_out(headers);
    let mut response = see("/sign-in");
    for cookie in cookie::forget() {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

fn cookie_for(pages: &Pages, token: &str, secure: bool) -> Result<HeaderValue, Problem> {
    let refused = |detail| Problem::new(StatusCode::FORBIDDEN, "sign_in_refused", detail);
    if token.len() > MAX_TOKEN {
        return Err(refused("the token is too long for a browser to keep"));
    }
    let session = pages.authorizer.sign_in(token)?;
    let cookie = session.and_then(|session| cookie::set(&session, secure));
    cookie.ok_or_else(|| refused("the token can't be stored"))
}

/// Over plain HTTP, sign-in is allowed only on this machine, because the network could read the token and the cookie.
fn may_sign_in(own: &OwnPage, host: Option<&Authority>) -> Result<(), Problem> {
    if own.secure || host.is_some_and(|host| is_loopback(host.host())) {
        return Ok(());
    }
    let detail = "signing in needs https, or a browser on the service's own machine: over plain http others could read the token";
    Err(Problem::new(StatusCode::FORBIDDEN, "insecure", detail))
}

/// The page of this service that sent the form. 403 if it was not sent by one.
fn own_page(host: Option<&Authority>, headers: &HeaderMap) -> Result<OwnPage, Problem> {
    if request_origin(host, headers) != RequestOrigin::Same {
        let detail = "a form is accepted only from a page of this service";
        return Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail));
    }
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let scheme = origin
        .and_then(|origin| origin.split_once("://"))
        .map(|(scheme, _)| scheme);
    // Without `Origin`, TLS is assumed, which gives the stricter cookie.
    let secure = scheme.is_none_or(|scheme| scheme != "http");
    Ok(OwnPage { secure })
}

/// The address to return to after sign-in. Always a path of this service, so that it can't be an open redirect.
fn next(asked: Option<&str>) -> String {
    let fits = |next: &&str| {
        let ours = next.starts_with('/') && !next.starts_with("//");
        ours && next.len() <= MAX_NEXT
            && next
                .bytes()
                .all(|byte| (0x21..0x7f).contains(&byte) && byte != b'\\')
    };
    asked.filter(fits).unwrap_or("/").to_owned()
}

/// A 303 redirect.
fn see(place: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let place = HeaderValue::from_str(place).unwrap_or_else(|_| HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, place);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(host: &str, headers: &[(&'static str, &str)]) -> Option<bool> {
        let host: Authority = host.parse().unwrap();
        let mut given = HeaderMap::new();
        for (name, value) in headers {
            given.insert(*name, value.parse().unwrap());
        }
        own_page(Some(&host), &given).ok().map(|own| own.secure)
    }

    #[test]
    fn a_post_counts_from_our_own_page_only() {
        for (headers, expected) in [
            (&[][..], None),
            (&[("origin", "http://a:8080")], Some(false)),
            (&[("origin", "https://a:8080")], Some(true)),
            (&[("origin", "http://evil")], None),
            (&[("origin", "null")], None),
            (
                &[
                    ("origin", "http://a:8080"),
                    ("sec-fetch-site", "cross-site"),
                ],
                None,
            ),
            (
                &[("origin", "http://a:8080"), ("sec-fetch-site", "same-site")],
                None,
            ),
            // A proxy may give the service another host name.
            (
                &[
                    ("origin", "https://front"),
                    ("sec-fetch-site", "same-origin"),
                ],
                Some(true),
            ),
        ] {
            assert_eq!(judged("a:8080", headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        for (host, expected) in [
            ("localhost:80", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("10.0.0.1", false),
            ("localhost.evil", false),
        ] {
            let host: Authority = host.parse().unwrap();
            let own = OwnPage { secure: false };
            assert_eq!(may_sign_in(&own, Some(&host)).is_ok(), expected, "{host}");
            assert!(may_sign_in(&OwnPage { secure: true }, Some(&host)).is_ok());
        }
    }

    #[test]
    fn nobody_is_sent_elsewhere() {
        assert_eq!(
            next(Some("/segments/a%20b?range=1d")),
            "/segments/a%20b?range=1d"
        );
        for bad in ["", "//evil", "/\\evil", "https://evil", "/a b", "/\u{e9}"] {
            assert_eq!(next(Some(bad)), "/", "{bad}");
        }
    }
}
