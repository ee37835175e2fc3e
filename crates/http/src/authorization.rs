//! Authorization of a request: its token, the token's scope, and its rate limit (RFC 6750, RFC 9110 section 11).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use warp::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use warp::http::{StatusCode, Uri};

use super::access::Access;
use super::cookie;
use super::problem::Problem;
use super::resource::Operation;
use super::session::Sessions;
use crate::auth::{Auth, Caller, Invalid, Limited, Scope};
use domain::Reach;
use telemetry::Metrics;

/// A longer token is malformed. A JWT with many claims has 2,000 bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Authorizes requests by their tokens. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Authorizer {
    auth: Arc<Auth>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
}

/// The authorization of an event stream, which is checked again while the stream lasts.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    authorizer: Authorizer,
    credential: Credential,
    /// The segments that the token allowed when the response began.
    reach: Reach,
}

#[derive(Debug, Clone)]
enum Credential {
    Token(String),
    Session(String),
}

impl Grant {
    /// Whether the token is still valid for reads: not revoked, not expired, for the same segments, and not signed out.
    pub(super) fn is_valid(&self) -> bool {
        self.is_valid_for(Scope::Read)
    }

    /// The same for what needs `scope`.
    pub(super) fn is_valid_for(&self, scope: Scope) -> bool {
        let token = match &self.credential {
            Credential::Token(token) => Some(token.clone()),
            Credential::Session(text) => self.authorizer.session_token(text),
        };
        let caller = token.and_then(|token| self.authorizer.auth.check(&token).ok());
        caller.is_some_and(|caller| caller.scopes.contains(scope) && caller.reach == self.reach)
    }
}

/// Why a request is refused, and its caller if known.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) problem: Box<Problem>,
    pub(super) who: Option<Arc<str>>,
}

impl Refused {
    pub(super) fn of(problem: Problem, who: Option<&Arc<str>>) -> Self {
        Self {
            problem: Box::new(problem),
            who: who.cloned(),
        }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::of(problem, None)
    }
}

/// The credentials that a request presents.
#[derive(Debug, PartialEq, Eq)]
enum Presented<'a> {
    /// A session of the page.
    Session(&'a str),
    /// No token: no header, or another scheme.
    Nothing,
    /// A well-formed token.
    Token(&'a str),
    /// A well-formed token that a client of another program sent in its own way.
    ClientToken(String),
    /// A bearer token that is not well-formed.
    Malformed,
    /// More than one `Authorization` header.
    Twice,
}

impl Authorizer {
    pub(super) fn new(auth: Arc<Auth>, sessions: Sessions, metrics: Arc<Metrics>) -> Self {
        Self {
            auth,
            sessions: Arc::new(sessions),
            metrics,
        }
    }

    /// The authentication that it is based on.
    pub(super) fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    /// Whether tokens are required at all.
    pub(super) fn is_on(&self) -> bool {
        self.auth.is_on()
    }

    /// A session for `token`, if the token has scope `read`. `None` if no session can be created.
    pub(super) fn sign_in(&self, token: &str) -> Result<Option<String>, Problem> {
        if token.is_empty() || !token.bytes().all(|byte| is_token_char(&byte)) {
            return Err(self.refuse("malformed", malformed()));
        }
        let checked = self.check(token, Scope::Read);
        checked.map_err(|refused| *refused.problem)?;
        Ok(self.sessions.seal(token, self.auth.now()))
    }

    /// Ends the session in the request's cookie, if there is one.
    pub(super) fn sign_out(&self, headers: &HeaderMap) {
        let session = cookie::session(headers);
        let session = session.and_then(|text| self.sessions.open(text, self.auth.now()));
        if let Some(session) = session {
            self.sessions.end(&session);
        }
    }

    /// The grant of an authorized request, for a response that outlasts the handler.
    pub(super) fn grant(&self, headers: &HeaderMap, caller: &Caller) -> Option<Grant> {
        let credential = match presented(headers, true) {
            Presented::Token(token) => Credential::Token(token.to_owned()),
            Presented::Session(text) => Credential::Session(text.to_owned()),
            Presented::ClientToken(_)
            | Presented::Nothing
            | Presented::Malformed
            | Presented::Twice => return None,
        };
        Some(Grant {
            authorizer: self.clone(),
            credential,
            reach: caller.reach.clone(),
        })
    }

    /// The token of a session that is still open.
    fn session_token(&self, text: &str) -> Option<String> {
        let session = self.sessions.open(text, self.auth.now());
        session.map(|session| session.token)
    }

    /// Authorizes the request and charges it to the rate limit of its caller. `None` if no token is required.
    pub(super) fn authorize(
        &self,
        operation: &Operation,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, Refused> {
        let scope = match operation.access {
            Access::Open => return Ok(None),
            Access::Metrics if self.auth.metrics_are_open() => return Ok(None),
            Access::Metrics => Scope::Read,
            Access::Needs(scope) => scope,
            Access::InBody => Scope::Write,
        };
        if !self.auth.is_on() {
            return Ok(None);
        }
        let session_token;
        let client_token;
        let presented = match operation.takes_client_token {
            true => presented_by_client(headers, uri.query()),
            false => presented(headers, operation.takes_cookie),
        };
        let token = match presented {
            Presented::Token(token) => token,
            Presented::ClientToken(token) => {
                client_token = token;
                &client_token
            }
            Presented::Session(text) => {
                session_token = self.session_token(text);
                // An ended session counts as no session: the browser is redirected to the sign-in form.
                session_token
                    .as_deref()
                    .ok_or_else(|| self.refuse("missing", missing(scope)))?
            }
            Presented::Nothing if operation.access == Access::InBody => return Ok(None),
            Presented::Nothing => return Err(self.refuse("missing", missing(scope)).into()),
            Presented::Malformed => return Err(self.refuse("malformed", malformed()).into()),
            Presented::Twice => return Err(self.refuse("malformed", twice()).into()),
        };
        self.charged(token, scope).map(Some)
    }

    /// Authorizes a request whose token is in its body, and charges it to the rate limit of its caller.
    pub(super) fn authorize_by_body(&self, token: Option<&str>) -> Result<Caller, Problem> {
        let scope = Scope::Write;
        let Some(token) = token else {
            return Err(self.refuse("missing", missing(scope)));
        };
        match fit(token.as_bytes()) {
            Presented::Token(token) => self
                .charged(token, scope)
                .map_err(|refused| *refused.problem),
            _ => Err(self.refuse("malformed", malformed())),
        }
    }

    fn charged(&self, token: &str, scope: Scope) -> Result<Caller, Refused> {
        let caller = self.check(token, scope)?;
        if let Some(limiter) = &caller.limiter {
            let charged = limiter.request();
            charged.map_err(|limited| {
                let problem = rate_limit_problem(limited, "requests", &self.metrics);
                Refused::of(problem, Some(&caller.name))
            })?;
        }
        Ok(caller)
    }

    /// Whether the caller may see internal details: with scope `read` or `admin`, or if no token is required.
    pub(super) fn shows_details(&self, headers: &HeaderMap) -> bool {
        if !self.auth.is_on() {
            return true;
        }
        let Presented::Token(token) = presented(headers, false) else {
            return false;
        };
        let caller = self.auth.check(token);
        caller.is_ok_and(|caller| {
            [Scope::Read, Scope::Admin]
                .iter()
                .any(|scope| caller.scopes.contains(*scope))
        })
    }

    fn check(&self, token: &str, scope: Scope) -> Result<Caller, Refused> {
        let caller = self.auth.check(token).map_err(|reason| {
            let problem = invalid(&format!("the token {reason}"));
            self.refuse(label(reason), problem)
        })?;
        if !caller.scopes.contains(scope) {
            let problem = self.refuse("scope", insufficient(scope));
            return Err(Refused::of(problem, Some(&caller.name)));
        }
        Ok(caller)
    }

    /// Counts a refusal in the metrics and returns `problem`.
    pub(super) fn refuse(&self, reason: &'static str, problem: Problem) -> Problem {
        self.metrics.auth.refusals.with([reason]).inc();
        problem
    }
}

/// The problem of a request over the rate limit of `what`.
pub(super) fn rate_limit_problem(
    limited: Limited,
    what: &'static str,
    metrics: &Metrics,
) -> Problem {
    metrics.auth.limited.with([what]).inc();
    match limited {
        Limited::Wait { rate, wait } => rate_limited(what, rate, wait),
        // Only pairs are charged several at a time.
        Limited::TooMany { most } => {
            let detail = format!(
                "this token may send at most {most} {what} a second, which also limits one request: send fewer at a time"
            );
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_pairs", detail)
                .member("limit", most)
        }
    }
}

fn rate_limited(what: &str, rate: u32, wait: Duration) -> Problem {
    let detail =
        format!("this token may send {rate} {what} a second; nothing of the request was accepted");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
        .retry_after(wait)
        .member("limit", rate)
}

/// The token of the only `Authorization` header. Without one, and with `by_cookie`, the session in the cookie.
fn presented(headers: &HeaderMap, by_cookie: bool) -> Presented<'_> {
    match in_header(headers) {
        Presented::Nothing if by_cookie => {
            cookie::session(headers).map_or(Presented::Nothing, Presented::Session)
        }
        presented => presented,
    }
}

fn in_header(headers: &HeaderMap) -> Presented<'_> {
    match scheme(headers) {
        Ok(Some((scheme, token))) if scheme.eq_ignore_ascii_case(b"bearer") => fit(token),
        Ok(_) => Presented::Nothing,
        Err(twice) => twice,
    }
}

/// The token as clients of InfluxDB, Segment and RudderStack send it. Without a header, clients of InfluxDB 1 have it in the query.
fn presented_by_client<'h>(headers: &'h HeaderMap, query: Option<&str>) -> Presented<'h> {
    let given = match scheme(headers) {
        Ok(given) => given,
        Err(twice) => return twice,
    };
    let is = |scheme: &[u8], name: &[u8]| scheme.eq_ignore_ascii_case(name);
    // With the settings of InfluxDB 1, Vector sends the header with an empty token, and the password in the query.
    let given = given.filter(|(scheme, value)| !(is(scheme, b"token") && value.is_empty()));
    let Some((scheme, value)) = given else {
        let parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let mut passwords = parameters.filter(|(name, _)| name == "p");
        return passwords
            .next()
            .map_or(Presented::Nothing, |(_, value)| client_token(&value));
    };
    if is(scheme, b"bearer") || is(scheme, b"token") {
        return fit(value);
    }
    if !is(scheme, b"basic") {
        return Presented::Nothing;
    }
    let decoded = BASE64_STANDARD.decode(value).ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match text.as_deref().and_then(|text| text.split_once(':')) {
        // A write key is the user name, without a password.
        Some((name, "")) => client_token(name),
        Some((_, password)) => client_token(password),
        None => Presented::Malformed,
    }
}

fn client_token(token: &str) -> Presented<'static> {
    match fit(token.as_bytes()) {
        Presented::Token(token) => Presented::ClientToken(token.to_owned()),
        _ => Presented::Malformed,
    }
}

/// An authentication scheme, and what follows it.
type Credentials<'h> = (&'h [u8], &'h [u8]);

/// The scheme and the rest of the only `Authorization` header. The scheme is case-insensitive (RFC 9110, section 11.1).
fn scheme(headers: &HeaderMap) -> Result<Option<Credentials<'_>>, Presented<'_>> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(Presented::Twice);
    }
    let value = value.as_bytes().trim_ascii();
    let end = value.iter().position(|byte| *byte == b' ');
    let (scheme, rest) = value.split_at(end.unwrap_or(value.len()));
    Ok(Some((scheme, rest.trim_ascii())))
}

fn fit(token: &[u8]) -> Presented<'_> {
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES || !token.iter().all(is_token_char) {
        return Presented::Malformed;
    }
    std::str::from_utf8(token).map_or(Presented::Malformed, Presented::Token)
}

/// The characters of `b64token` (RFC 6750, section 2.1).
fn is_token_char(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte)
}

/// The metric label of a refusal.
fn label(reason: Invalid) -> &'static str {
    match reason {
        Invalid::Unknown => "unknown",
        Invalid::Expired => "expired",
        Invalid::NotYet => "not_yet",
        Invalid::TooOld => "expired",
        Invalid::Claim(_)
        | Invalid::Claims
        | Invalid::Audience
        | Invalid::Issuer
        | Invalid::Type => "claims",
    }
}

/// 401 without an error code, because the request has no credentials (RFC 6750, section 3.1).
fn missing(scope: Scope) -> Problem {
    let detail =
        format!("this needs a token with scope {scope}: send `Authorization: Bearer TOKEN`");
    Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
        .header(WWW_AUTHENTICATE, challenge(""))
}

fn malformed() -> Problem {
    invalid("the token is empty, too long or has invalid characters")
}

fn invalid(detail: &str) -> Problem {
    let error = format!(
        ", error=\"invalid_token\", error_description=\"{}\"",
        quotable(detail)
    );
    Problem::new(StatusCode::UNAUTHORIZED, "invalid_token", detail)
        .header(WWW_AUTHENTICATE, challenge(&error))
}

fn twice() -> Problem {
    let detail = "there is more than one Authorization header";
    Problem::bad_request("invalid_request", detail)
        .header(WWW_AUTHENTICATE, challenge(", error=\"invalid_request\""))
}

fn insufficient(scope: Scope) -> Problem {
    let detail = format!("this needs a token with scope {scope}, which this token does not have");
    let error = format!(", error=\"insufficient_scope\", scope=\"{scope}\"");
    Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail)
        .member("scope", scope.as_str())
        .header(WWW_AUTHENTICATE, challenge(&error))
}

/// The problem of a request for a segment that the token does not allow.
pub(super) fn forbidden_segment() -> Problem {
    let detail = "the token is bound to segments, and the request is not limited to them";
    Problem::new(StatusCode::FORBIDDEN, "forbidden_segment", detail).header(
        WWW_AUTHENTICATE,
        challenge(", error=\"insufficient_scope\""),
    )
}

fn challenge(error: &str) -> HeaderValue {
    const PLAIN: &str = "Bearer realm=\"headcount\"";
    HeaderValue::from_str(&format!("{PLAIN}{error}"))
        .unwrap_or_else(|_| HeaderValue::from_static(PLAIN))
}

/// An `error_description` may have no quotes (RFC 6750, section 3).
fn quotable(text: &str) -> String {
    text.replace(['"', '\\', '`'], "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_under_one_scheme() {
        for (values, expected) in [
            (&[][..], Presented::Nothing),
            (&[""], Presented::Nothing),
            (&["Basic dTpw"], Presented::Nothing),
            (&["Bearerabc"], Presented::Nothing),
            (&["Bearer abc"], Presented::Token("abc")),
            (&["bEARER   a.b-c_~+/= "], Presented::Token("a.b-c_~+/=")),
            (&["Bearer"], Presented::Malformed),
            (&["Bearer "], Presented::Malformed),
            (&["Bearer a b"], Presented::Malformed),
            (&["Bearer a,b"], Presented::Malformed),
            (&["Bearer a\"b"], Presented::Malformed),
            (&["Bearer a", "Bearer a"], Presented::Twice),
            (&["Basic a", "Bearer a"], Presented::Twice),
        ] {
            let mut given = HeaderMap::new();
            for value in values {
                given.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(presented(&given, false), expected, "{values:?}");
        }
        let mut given = HeaderMap::new();
        given.insert("cookie", HeaderValue::from_static("headcount=c"));
        assert_eq!(presented(&given, false), Presented::Nothing);
        assert_eq!(presented(&given, true), Presented::Session("c"));
        given.insert(AUTHORIZATION, HeaderValue::from_static("Bearer h"));
        assert_eq!(presented(&given, true), Presented::Token("h"));
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        let long = HeaderMap::from_iter([(AUTHORIZATION, long.parse().unwrap())]);
        assert_eq!(presented(&long, true), Presented::Malformed);
        let odd = HeaderValue::from_bytes(b"Bearer \xff").unwrap();
        let odd = HeaderMap::from_iter([(AUTHORIZATION, odd)]);
        assert_eq!(presented(&odd, true), Presented::Malformed);
    }
}
