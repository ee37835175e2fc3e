//! Restricts a caller whose token is bound to segments to those segments.
//!
//! [`Names`] declares where a route names segments. Names in a path or a query are checked here, before any handler
//! runs. Handlers that return or accept many segments leave out or refuse those beyond the caller's reach.

use std::borrow::Cow;

use warp::http::Uri;

use super::authorization;
use super::path;
use super::problem::Problem;
use super::query::Query;
use super::resource::Names;
use domain::Reach;

/// Refuses a request for segments beyond `reach`. An invalid name is left to the handler, which refuses it.
pub(super) fn check(names: Names, uri: &Uri, reach: &Reach) -> Result<(), Problem> {
    if reach.is_every() {
        return Ok(());
    }
    let is_within = match names {
        Names::Nothing => true,
        Names::Filtered => named(uri).all(|name| reach.covers(&name)),
        Names::InPath(place) => {
            let part = uri.path().split('/').skip(1).nth(place);
            // An invalid name gives access to nothing.
            let query = Query::parse(uri.query().unwrap_or_default());
            let named = part.and_then(|part| path::segment(part, &query).ok());
            named.is_none_or(|segment| reach.covers(segment.as_str()))
        }
        Names::InQuery => {
            let mut named = named(uri).peekable();
            // Without a name the request is about all segments.
            named.peek().is_some() && named.all(|name| reach.covers(&name))
        }
        Names::InExpression => {
            let query = Query::parse(uri.query().unwrap_or_default());
            query.expression("expr").ok().is_none_or(|expression| {
                // The complement of a set is about all segments.
                !expression.needs_every_segment()
                    && expression
                        .segments()
                        .into_iter()
                        .all(|segment| reach.covers(segment.as_str()))
            })
        }
        Names::Everything => false,
    };
    match is_within {
        true => Ok(()),
        false => Err(authorization::forbidden_segment()),
    }
}

/// The names in the `segment` parameters. An empty one is what a form sends for a field that was not filled in: it names
/// nothing.
fn named(uri: &Uri) -> impl Iterator<Item = Cow<'_, str>> {
    let query = uri.query().unwrap_or_default();
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs.filter_map(|(key, name)| (key == "segment" && !name.trim().is_empty()).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::find;

    #[test]
    fn a_bound_token_goes_as_far_as_its_segments() {
        let reach = Reach::of(["mine/*"]).unwrap();
        for (method, target, allowed) in [
            ("GET", "/v1/segments/mine%2Fa/count", true),
            ("GET", "/v1/segments/mine%2fa/count?window=1d", true),
            ("GET", "/v1/segments/yours/count", false),
            ("GET", "/v1/segments/mine/count", false),
            ("GET", "/v1/segments/mine%252Fa/count", false),
            ("GET", "/v1/segments/yours/trend", false),
            ("GET", "/segments/yours", false),
            // A name in the query replaces the one in the path.
            ("GET", "/v1/segments/-/count?segment=yours", false),
            ("GET", "/v1/segments/-/count?segment=mine%2Fa", true),
            ("GET", "/v1/segments/-/trend?%73egment=yours", false),
            ("GET", "/segments/-?segment=yours", false),
            ("GET", "/v1/segments/-/count", false),
            ("GET", "/segments/mine%2Fa", true),
            (
                "GET",
                "/v1/count?expr=mine%2Fa+AND+mine%2Fb+NOT+mine%2Fc",
                true,
            ),
            ("GET", "/v1/count?expr=mine%2Fa+AND+yours", false),
            ("GET", "/v1/count?expr=mine%2Fa+NOT+yours", false),
            ("GET", "/v1/count?expr=*", false),
            ("GET", "/v1/count?expr=*+NOT+mine%2Fa", false),
            ("GET", "/v1/count?expr=mine%2Fa&expr=yours", true),
            ("GET", "/v1/count?expr=mine%2Fa+AND", true),
            ("GET", "/v1/segments", true),
            ("GET", "/v1/segments?segment=mine/a&q=b", true),
            ("GET", "/v1/segments?segment=mine/a&segment=yours", false),
            ("GET", "/v1/segments?%73egment=yours", false),
            ("GET", "/v1/events?segment=yours", false),
            ("GET", "/compare?segment=mine/a&segment=", true),
            ("GET", "/compare?segment=+&segment=yours", false),
            ("GET", "/trends.csv?segment=", false),
            ("POST", "/v1/trends", true),
            ("POST", "/v1/pairs", true),
            ("GET", "/v1/events", true),
            ("GET", "/v1/users/u1", true),
            ("DELETE", "/v1/users/u1", false),
            ("POST", "/v1/admin/archive", false),
            ("POST", "/v1/admin/refresh", false),
            ("POST", "/v1/admin/refresh?segments=mine/a", false),
            ("POST", "/v1/admin/refresh?segment=mine%2Fa", true),
            (
                "POST",
                "/v1/admin/refresh?segment=mine/a&segment=yours",
                false,
            ),
            ("POST", "/v1/admin/refresh?segment=yours", false),
            ("GET", "/metrics/segments", true),
            ("GET", "/metrics/segments?segment=mine/a", true),
            ("GET", "/metrics/segments?segment=yours", false),
            ("GET", "/healthz", true),
        ] {
            let uri: Uri = target.parse().unwrap();
            let names = find(uri.path()).operation(method).unwrap().names;
            let checked = check(names, &uri, &reach);
            assert_eq!(checked.is_ok(), allowed, "{method} {target}");
            assert!(check(names, &uri, &Reach::every()).is_ok());
        }
    }
}
