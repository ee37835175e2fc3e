//! The host of a request, of which there must be exactly one (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
//!
//! With two hosts, a proxy could use one and the service the other, and so handle different requests.

use warp::host::Authority;
use warp::http::header::HOST;
use warp::http::{HeaderMap, Uri, Version};

use super::problem::Problem;

/// The host of a request. `None` only for HTTP/1.0, which does not require a host.
pub(super) fn of(
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<Authority>, Problem> {
    let mut given = headers.get_all(HOST).iter();
    let header = match (given.next(), given.next()) {
        (_, Some(_)) => return Err(invalid("there is more than one Host header")),
        (Some(value), None) => Some(parse(value.as_bytes())?),
        (None, None) => None,
    };
    match (version, uri.authority(), header) {
        (Version::HTTP_11, _, None) => Err(invalid("there is no Host header")),
        (Version::HTTP_2, Some(target), Some(header)) if *target != header => {
            Err(invalid("Host and :authority differ"))
        }
        (Version::HTTP_2, None, None) => Err(invalid("there is no :authority")),
        // An absolute target takes precedence over the Host header.
        (_, Some(target), _) => parse(target.as_str().as_bytes()).map(Some),
        (_, None, header) => Ok(header),
    }
}

fn parse(text: &[u8]) -> Result<Authority, Problem> {
    let host = Authority::try_from(text).ok();
    host.filter(|host| !host.host().is_empty() && !host.as_str().contains('@'))
        .ok_or_else(|| invalid("the host must be a name or an address, with or without a port"))
}

fn invalid(detail: &str) -> Problem {
    Problem::bad_request("invalid_host", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(version: Version, target: &str, hosts: &[&str]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        let found = of(version, &target.parse().unwrap(), &headers);
        let found = found.map_err(|problem| problem.summary().0)?;
        Ok(found.map(|host| host.to_string()))
    }

    #[test]
    fn one_host_that_is_one() {
        for (version, target, hosts, expected) in [
            (Version::HTTP_11, "/", &["a"][..], Ok(Some("a"))),
            (Version::HTTP_11, "/", &["a:8080"], Ok(Some("a:8080"))),
            (Version::HTTP_11, "/", &["[::1]:80"], Ok(Some("[::1]:80"))),
            (Version::HTTP_11, "http://b/", &["a"], Ok(Some("b"))),
            (Version::HTTP_10, "/", &[], Ok(None)),
            (Version::HTTP_10, "/", &["a", "a"], Err(400)),
            (Version::HTTP_11, "/", &[], Err(400)),
            (Version::HTTP_11, "/", &["a", "b"], Err(400)),
            (Version::HTTP_11, "/", &[""], Err(400)),
            (Version::HTTP_11, "/", &["a b"], Err(400)),
            (Version::HTTP_11, "/", &["a/b"], Err(400)),
            (Version::HTTP_11, "/", &["user@a"], Err(400)),
            (Version::HTTP_11, "/", &["a, b"], Err(400)),
            (Version::HTTP_11, "/", &[":80"], Err(400)),
            (Version::HTTP_11, "http://b/", &[], Err(400)),
            (Version::HTTP_2, "http://b/", &[], Ok(Some("b"))),
            (Version::HTTP_2, "http://b/", &["B"], Ok(Some("b"))),
            (Version::HTTP_2, "http://b/", &["a"], Err(400)),
            (Version::HTTP_2, "/", &[], Err(400)),
        ] {
            let expected = expected.map(|host: Option<&str>| host.map(str::to_owned));
            let found = host(version, target, hosts);
            assert_eq!(found, expected, "{version:?} {target} {hosts:?}");
        }
    }
}
