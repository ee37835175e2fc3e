//! Validates the user's input for requests: segment names, URLs and tokens.

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::DEFAULT_URL;
use crate::cli::Failure;
use crate::cli::output::sanitized;
use domain::Segment;
use domain::text::without_credentials;

/// Checks a segment's name before it is sent.
pub(in crate::cli) fn valid(segment: &str) -> Result<Segment, Failure> {
    Segment::new(segment)
        .map_err(|error| Failure::usage(format!("`{}`: {error}", sanitized(segment))))
}

pub(super) fn base_url(text: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!(
            "`{}` is not the URL of a service: {why}",
            sanitized(&without_credentials(text))
        ))
    };
    let url = Url::parse(text)
        .map_err(|error| wrong(&format!("{error}; give one such as {DEFAULT_URL}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::usage(
            "a URL of a service has no user and password: give --token",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must not have a query or a fragment"));
    }
    Ok(url)
}

pub(super) fn authorization(token: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| Failure::usage("the token has invalid characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

pub(super) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
