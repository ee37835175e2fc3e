//! Who may pass: the token of a request, its scope, and its limits (RFC 6750, RFC 9110 section 11).

use std::sync::Arc;
use std::time::Duration;

use warp::http::StatusCode;
use warp::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::cookie;
use super::problem::Problem;
use super::route::Access;
use super::session::Sessions;
use crate::auth::{Auth, Caller, Invalid, Limited, Scope};
use domain::Reach;
use telemetry::Metrics;

/// Longer ones are none; a JWT with many claims has two thousand.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Asks requests for tokens.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    auth: Arc<Auth>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
}

/// What lets somebody go on receiving an answer that has no end.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    gate: Gate,
    credential: Credential,
    /// The segments that they could see when the answer began.
    reach: Reach,
}

#[derive(Debug, Clone)]
enum Credential {
    Token(String),
    Session(String),
}

impl Standing {
    /// Whether the token is as good as it was: not revoked, not expired, for the same segments, and not signed out.
    pub(super) fn holds(&self) -> bool {
        let token = match &self.credential {
            Credential::Token(token) => Some(token.clone()),
            Credential::Session(text) => self.gate.opened(text),
        };
        let caller = token.and_then(|token| self.gate.auth.check(&token).ok());
        caller
            .is_some_and(|caller| caller.scopes.contains(Scope::Read) && caller.reach == self.reach)
    }
}

/// Why a request does not pass, and who sent it where that is known.
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

/// What a request says of who sent it.
#[derive(Debug, PartialEq, Eq)]
enum Presented<'a> {
    /// A session of the page.
    Session(&'a str),
    /// No token: no header, or another scheme.
    Nothing,
    /// Something that can be a token.
    Token(&'a str),
    /// Something that can't.
    Malformed,
    /// More than one answer to the question.
    Twice,
}

impl Gate {
    pub(super) fn new(auth: Arc<Auth>, sessions: Sessions, metrics: Arc<Metrics>) -> Self {
        Self {
            auth,
            sessions: Arc::new(sessions),
            metrics,
        }
    }

    /// What it asks.
    pub(super) fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    /// Whether anybody is asked for a token at all.
    pub(super) fn is_on(&self) -> bool {
        self.auth.is_on()
    }

    /// A session for whoever has `token`, if that lets its holder look at pages; `None` where none can be made.
    pub(super) fn sign_in(&self, token: &str) -> Result<Option<String>, Problem> {
        if token.is_empty() || !token.bytes().all(|byte| is_of_a_token(&byte)) {
            return Err(self.refuse("malformed", malformed()));
        }
        let checked = self.check(token, Scope::Read);
        checked.map_err(|refused| *refused.problem)?;
        Ok(self.sessions.seal(token, self.auth.now()))
    }

    /// Ends the session that a request came with, if it did.
    pub(super) fn sign_out(&self, headers: &HeaderMap) {
        let session = cookie::session(headers);
        let session = session.and_then(|text| self.sessions.open(text, self.auth.now()));
        if let Some(session) = session {
            self.sessions.end(&session);
        }
    }

    /// What lets the sender of an admitted request go on receiving its answer.
    pub(super) fn standing(&self, headers: &HeaderMap, caller: &Caller) -> Option<Standing> {
        let credential = match presented(headers, true) {
            Presented::Token(token) => Credential::Token(token.to_owned()),
            Presented::Session(text) => Credential::Session(text.to_owned()),
            Presented::Nothing | Presented::Malformed | Presented::Twice => return None,
        };
        Some(Standing {
            gate: self.clone(),
            credential,
            reach: caller.reach.clone(),
        })
    }

    /// The token of a session, while that is open.
    fn opened(&self, text: &str) -> Option<String> {
        let session = self.sessions.open(text, self.auth.now());
        session.map(|session| session.token)
    }

    /// Who sent the request, where anybody asks, and charges it to them. With `by_cookie` the token may come in
    /// the page's cookie where no header has one.
    pub(super) fn admit(
        &self,
        access: Access,
        by_cookie: bool,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, Refused> {
        let scope = match access {
            Access::Open => return Ok(None),
            Access::Metrics if self.auth.metrics_are_open() => return Ok(None),
            Access::Metrics => Scope::Read,
            Access::Needs(scope) => scope,
        };
        if !self.auth.is_on() {
            return Ok(None);
        }
        let opened;
        let token = match presented(headers, by_cookie) {
            Presented::Token(token) => token,
            Presented::Session(text) => {
                opened = self.opened(text);
                // One that has ended is as good as none: a person is sent to the form.
                opened
                    .as_deref()
                    .ok_or_else(|| self.refuse("missing", missing(scope)))?
            }
            Presented::Nothing => return Err(self.refuse("missing", missing(scope)).into()),
            Presented::Malformed => return Err(self.refuse("malformed", malformed()).into()),
            Presented::Twice => return Err(self.refuse("malformed", twice()).into()),
        };
        let caller = self.check(token, scope)?;
        if let Some(limiter) = &caller.limiter {
            let charged = limiter.request();
            charged.map_err(|limited| {
                let problem = limit(limited, "requests", &self.metrics);
                Refused::of(problem, Some(&caller.name))
            })?;
        }
        Ok(Some(caller))
    }

    /// Whether the sender may see what is wrong inside: who may read or administer, and everybody where no token is
    /// asked for.
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

    /// Counts a refusal.
    pub(super) fn refuse(&self, reason: &'static str, problem: Problem) -> Problem {
        self.metrics.auth.refusals.with([reason]).inc();
        problem
    }
}

/// The problem of a request that asked for too much of `what`.
pub(super) fn limit(limited: Limited, what: &'static str, metrics: &Metrics) -> Problem {
    metrics.auth.limited.with([what]).inc();
    match limited {
        Limited::Wait { rate, wait } => rate_limited(what, rate, wait),
        // Only pairs come several at once.
        Limited::TooMany { most } => {
            let detail = format!(
                "this token may send at most {most} {what} a second, and no request may have more: send fewer at a time"
            );
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_pairs", detail)
                .member("limit", most)
        }
    }
}

fn rate_limited(what: &str, rate: u32, wait: Duration) -> Problem {
    let detail =
        format!("this token may send {rate} {what} a second; nothing of the request was taken");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
        .retry_after(wait)
        .member("limit", rate)
}

/// The token of the only `Authorization` header; without one, and where it may, the session of the cookie.
fn presented(headers: &HeaderMap, by_cookie: bool) -> Presented<'_> {
    match in_header(headers) {
        Presented::Nothing if by_cookie => {
            cookie::session(headers).map_or(Presented::Nothing, Presented::Session)
        }
        presented => presented,
    }
}

/// The scheme may be written in any case (RFC 9110, section 11.1).
fn in_header(headers: &HeaderMap) -> Presented<'_> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Presented::Nothing;
    };
    if given.next().is_some() {
        return Presented::Twice;
    }
    let value = value.as_bytes().trim_ascii();
    let end = value.iter().position(|byte| *byte == b' ');
    let (scheme, token) = value.split_at(end.unwrap_or(value.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Presented::Nothing;
    }
    fit(token.trim_ascii())
}

fn fit(token: &[u8]) -> Presented<'_> {
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES || !token.iter().all(is_of_a_token) {
        return Presented::Malformed;
    }
    std::str::from_utf8(token).map_or(Presented::Malformed, Presented::Token)
}

/// The characters of `b64token` (RFC 6750, section 2.1).
fn is_of_a_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte)
}

/// What a refusal is called in metrics.
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

/// 401 without an error: nobody was asked before (RFC 6750, section 3.1).
fn missing(scope: Scope) -> Problem {
    let detail =
        format!("this needs a token with scope {scope}: send `Authorization: Bearer TOKEN`");
    Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
        .header(WWW_AUTHENTICATE, challenge(""))
}

fn malformed() -> Problem {
    invalid("the token has characters that no token has, or none at all")
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
    let detail = format!("this needs a token with scope {scope}, which the token has not");
    let error = format!(", error=\"insufficient_scope\", scope=\"{scope}\"");
    Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail)
        .member("scope", scope.as_str())
        .header(WWW_AUTHENTICATE, challenge(&error))
}

/// The problem of a request for a segment that the token is not for.
pub(super) fn beyond_reach() -> Problem {
    let detail = "the token is bound to segments, and this is beyond them";
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

/// The descriptions of RFC 6750 hold no quotes.
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
