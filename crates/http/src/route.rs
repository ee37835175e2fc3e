//! The table of routes: for each path its template in logs and metrics, its methods, its query parameters, and the
//! scope that each method needs.

use crate::auth::Scope;

/// A resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Pairs,
    Count,
    Segments,
    Trend,
    Events,
    User,
    Refresh,
    Archive,
    Health,
    Ready,
    Metrics,
    OpenApi,
    Docs,
    DocsFile,
    Page,
    SegmentPage,
    SignIn,
    SignOut,
    Asset,
    Unknown,
}

/// What access to a resource requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: supervisors and load balancers have no token.
    Open,
    /// Scope `read`, unless the setting `metrics_open` is on.
    Metrics,
    /// A token with this scope.
    Needs(Scope),
}

/// Where a request names segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Nowhere.
    Nothing,
    /// In the part of its path with this index, from 0.
    InPath(usize),
    /// In its `segment` parameters. Without one the request is about all segments.
    InQuery,
    /// In its body or response: the handler accepts or returns only segments within the caller's reach.
    Filtered,
    /// Nowhere: it is about all segments at once.
    Everything,
}

/// The most parts of a known path; a longer path is unknown.
const MAX_PARTS: usize = 4;

impl Route {
    /// Every resource. A new one that is not listed here does not compile, because `Unknown` is the last variant.
    pub(super) const ALL: [Self; Self::Unknown as usize] = [
        Self::Pairs,
        Self::Count,
        Self::Segments,
        Self::Trend,
        Self::Events,
        Self::User,
        Self::Refresh,
        Self::Archive,
        Self::Health,
        Self::Ready,
        Self::Metrics,
        Self::OpenApi,
        Self::Docs,
        Self::DocsFile,
        Self::Page,
        Self::SegmentPage,
        Self::SignIn,
        Self::SignOut,
        Self::Asset,
    ];

    /// The resource at `path`.
    pub(super) fn of(path: &str) -> Self {
        let mut parts = [""; MAX_PARTS];
        let mut length = 0;
        for part in path.split('/').skip(1) {
            let Some(place) = parts.get_mut(length) else {
                return Self::Unknown;
            };
            *place = part;
            length += 1;
        }
        let given = |name: &str| !name.is_empty();
        match &parts[..length] {
            ["v1", "pairs"] => Self::Pairs,
            ["v1", "segments", name, "count"] if given(name) => Self::Count,
            ["v1", "segments"] => Self::Segments,
            ["v1", "segments", name, "trend"] if given(name) => Self::Trend,
            ["v1", "events"] => Self::Events,
            ["v1", "users", name] if given(name) => Self::User,
            ["v1", "admin", "refresh"] => Self::Refresh,
            ["v1", "admin", "archive"] => Self::Archive,
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Ready,
            ["metrics"] => Self::Metrics,
            ["openapi.json"] => Self::OpenApi,
            ["docs"] => Self::Docs,
            ["docs", name] if given(name) => Self::DocsFile,
            [""] => Self::Page,
            ["segments", name] if given(name) => Self::SegmentPage,
            ["sign-in"] => Self::SignIn,
            ["sign-out"] => Self::SignOut,
            ["assets", name] if given(name) => Self::Asset,
            _ => Self::Unknown,
        }
    }

    /// The path with placeholders for values. The path itself must not be logged: it may have a user id.
    pub(super) fn template(self) -> &'static str {
        match self {
            Self::Pairs => "/v1/pairs",
            Self::Count => "/v1/segments/{segment}/count",
            Self::Segments => "/v1/segments",
            Self::Trend => "/v1/segments/{segment}/trend",
            Self::Events => "/v1/events",
            Self::User => "/v1/users/{user_id}",
            Self::Refresh => "/v1/admin/refresh",
            Self::Archive => "/v1/admin/archive",
            Self::Health => "/healthz",
            Self::Ready => "/readyz",
            Self::Metrics => "/metrics",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
            Self::DocsFile => "/docs/{file}",
            Self::Page => "/",
            Self::SegmentPage => "/segments/{segment}",
            Self::SignIn => "/sign-in",
            Self::SignOut => "/sign-out",
            Self::Asset => "/assets/{file}",
            Self::Unknown => "unknown",
        }
    }

    /// The methods of the resource, in the form of an `Allow` header.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::Pairs | Self::Refresh | Self::Archive | Self::SignOut => "POST",
            Self::SignIn => "GET, HEAD, POST",
            Self::User => "GET, HEAD, DELETE",
            Self::Count
            | Self::Segments
            | Self::Trend
            | Self::Events
            | Self::Health
            | Self::Ready
            | Self::Metrics
            | Self::OpenApi
            | Self::Docs
            | Self::DocsFile
            | Self::Page
            | Self::SegmentPage
            | Self::Asset => "GET, HEAD",
            Self::Unknown => "",
        }
    }

    /// The query parameters of the resource. Any other is refused: to ignore a misspelt parameter would return the result
    /// of another query.
    pub(super) fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Count => &["window", "fresh", "segment"],
            Self::Segments => &["prefix", "window", "sort", "limit", "cursor"],
            Self::Trend => &["window", "from", "to", "step", "segment"],
            Self::Events | Self::Refresh => &["segment"],
            Self::User => &["user_id"],
            Self::Page => &["q", "sort", "order", "page"],
            Self::SegmentPage => &["window", "range", "from", "to", "segment"],
            Self::SignIn => &["next"],
            // The version, which makes browsers request a new file.
            Self::Asset => &["v"],
            Self::Pairs
            | Self::Archive
            | Self::Health
            | Self::Ready
            | Self::Metrics
            | Self::OpenApi
            | Self::Docs
            | Self::DocsFile
            | Self::SignOut
            | Self::Unknown => &[],
        }
    }

    /// What access to the resource by `method` requires.
    pub(super) fn access(self, method: &str) -> Access {
        match self {
            Self::Pairs => Access::Needs(Scope::Write),
            Self::User if method == "DELETE" => Access::Needs(Scope::Erase),
            Self::User => Access::Needs(Scope::Users),
            Self::Refresh | Self::Archive => Access::Needs(Scope::Admin),
            Self::Count
            | Self::Segments
            | Self::Trend
            | Self::Events
            | Self::Page
            | Self::SegmentPage => Access::Needs(Scope::Read),
            Self::Metrics => Access::Metrics,
            // The API documents and the page's files have no data beyond the public source.
            Self::OpenApi
            | Self::Docs
            | Self::DocsFile
            | Self::Health
            | Self::Ready
            | Self::SignIn
            | Self::SignOut
            | Self::Asset
            | Self::Unknown => Access::Open,
        }
    }

    /// Where a request for the resource by `method` names segments.
    pub(super) fn names(self, method: &str) -> Names {
        match self {
            Self::Count | Self::Trend => Names::InPath(2),
            Self::SegmentPage => Names::InPath(1),
            Self::Refresh => Names::InQuery,
            Self::User if method == "DELETE" => Names::Everything,
            Self::Archive => Names::Everything,
            Self::Pairs | Self::Segments | Self::Events | Self::User | Self::Page => {
                Names::Filtered
            }
            Self::Health
            | Self::Ready
            | Self::Metrics
            | Self::OpenApi
            | Self::Docs
            | Self::DocsFile
            | Self::SignIn
            | Self::SignOut
            | Self::Asset
            | Self::Unknown => Names::Nothing,
        }
    }

    /// Whether the resource is a page of the web interface.
    pub(super) fn is_page(self) -> bool {
        matches!(
            self,
            Self::Page | Self::SegmentPage | Self::SignIn | Self::SignOut
        )
    }

    /// Whether the page's cookie authorizes the request: only reads, of the pages and of what their script requests.
    pub(super) fn takes_cookie(self, method: &str) -> bool {
        let read = matches!(
            self.template(),
            "/" | "/segments/{segment}"
                | "/v1/segments"
                | "/v1/segments/{segment}/count"
                | "/v1/segments/{segment}/trend"
                | "/v1/events"
        );
        read && matches!(method, "GET" | "HEAD")
    }

    /// Whether the resource has `method`.
    pub(super) fn takes(self, method: &str) -> bool {
        self.methods().split(", ").any(|known| known == method)
    }
}

/// Whether an unknown `path` would be known if a slash within a name were percent-encoded.
pub(super) fn has_slash_in_name(path: &str) -> bool {
    let name = ["/v1/segments/", "/v1/users/", "/segments/"]
        .iter()
        .find_map(|start| path.strip_prefix(start));
    let Some(rest) = name else { return false };
    let of_segment = rest
        .strip_suffix("/count")
        .or_else(|| rest.strip_suffix("/trend"));
    match of_segment {
        Some(name) => name.contains('/'),
        None => !path.starts_with("/v1/segments/") && rest.contains('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_templates() {
        for (path, template) in [
            ("/v1/pairs", "/v1/pairs"),
            ("/v1/segments/a%2Fb/count", "/v1/segments/{segment}/count"),
            ("/v1/segments/count/trend", "/v1/segments/{segment}/trend"),
            ("/v1/users/u1", "/v1/users/{user_id}"),
            ("/healthz", "/healthz"),
            ("/v1/segments//count", "unknown"),
            ("/v1/segments/a/b/count", "unknown"),
            ("/v1/pairs/", "unknown"),
            ("/v1/users/u1/x", "unknown"),
            ("//healthz", "unknown"),
            ("/", "/"),
            ("/segments/a%2Fb", "/segments/{segment}"),
            ("/segments/", "unknown"),
            ("", "unknown"),
            ("*", "unknown"),
        ] {
            assert_eq!(Route::of(path).template(), template, "{path}");
        }
    }

    #[test]
    fn a_slash_in_a_name_is_seen() {
        for path in [
            "/v1/segments/a/b/count",
            "/v1/segments/a/b/c/trend",
            "/v1/users/a/b",
            "/segments/a/b",
        ] {
            assert!(
                Route::of(path) == Route::Unknown && has_slash_in_name(path),
                "{path}"
            );
        }
        for path in [
            "/v1/segments/a/counts",
            "/v1/segments//count",
            "/v1/pairs/x",
            "/a/b",
        ] {
            assert!(!has_slash_in_name(path), "{path}");
        }
    }

    #[test]
    fn methods_are_taken_whole() {
        assert!(Route::User.takes("DELETE"));
        assert!(!Route::Pairs.takes("GET"));
        assert!(!Route::Pairs.takes(""));
        assert!(!Route::Health.takes("get"));
    }
}
