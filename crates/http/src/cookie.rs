//! The session cookie of the page.
//!
//! `SameSite=Strict`: no request that another site causes has the cookie. `HttpOnly`: no script can read it. It lasts until
//! the browser is closed or the session ends.

use warp::http::header::{COOKIE, HeaderMap, HeaderValue};

/// The name over TLS. Browsers accept the prefix `__Host-` only from exactly this host, over TLS and for all paths.
const SECURE: &str = "__Host-headcount";
/// The name without TLS, used only on loopback addresses.
const PLAIN: &str = "headcount";

/// The session in the request's cookie; `None` also for an empty value.
///
/// `headers::Cookie` is not used: it takes a semicolon after an unpaired quote as a part of the value, and drops all lines
/// if one is not ASCII. Another service on this host, even on another port, may set such a cookie.
pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    let pairs = || {
        let lines = headers.get_all(COOKIE).iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(';'))
    };
    [SECURE, PLAIN].iter().find_map(|name| {
        pairs().find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == *name && !value.is_empty()).then_some(value)
        })
    })
}

/// The `Set-Cookie` value that stores `session`. `None` if `session` has characters that a header can't have.
pub(super) fn set(session: &str, secure: bool) -> Option<HeaderValue> {
    let text = match secure {
        true => format!("{SECURE}={session}; Path=/; HttpOnly; SameSite=Strict; Secure"),
        false => format!("{PLAIN}={session}; Path=/; HttpOnly; SameSite=Strict"),
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The `Set-Cookie` values that delete the cookie under both names.
pub(super) fn forget() -> [HeaderValue; 2] {
    [
        HeaderValue::from_static(
            "__Host-headcount=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0",
        ),
        HeaderValue::from_static("headcount=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let found = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, line.parse().unwrap());
            }
            session(&headers).map(str::to_owned)
        };
        assert_eq!(found(&[]), None);
        assert_eq!(found(&["headcount="]), None);
        assert_eq!(found(&["xheadcount=a; headcountx=b"]), None);
        assert_eq!(found(&["a=b; headcount=t=="]), Some("t==".into()));
        assert_eq!(found(&["a=\"b; headcount=t"]), Some("t".into()));
        assert_eq!(found(&["headcount=; headcount=t"]), Some("t".into()));
        assert_eq!(found(&["a=\u{e9}", "headcount=t"]), Some("t".into()));
        assert_eq!(
            found(&["headcount=plain", "__Host-headcount=secure"]),
            Some("secure".into())
        );
        assert!(
            set("t", true)
                .unwrap()
                .to_str()
                .unwrap()
                .ends_with("; Secure")
        );
        assert!(
            !set("t", false)
                .unwrap()
                .to_str()
                .unwrap()
                .contains("Secure")
        );
    }
}
