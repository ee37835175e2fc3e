//! What a resource is: its path, its query parameters, and for each method who may use it, where it names segments, and how
//! it is described.
//!
//! Each resource is a constant beside its handler, in [`api`](crate::api) or [`page`](crate::page).

use warp::Filter;
use warp::filters::path::FullPath;

use crate::access::Access;
use crate::auth::Scope;
use crate::openapi::Described;

/// A resource of the service.
#[derive(Debug)]
pub(super) struct Resource {
    /// The path with names in place of values: a path itself may hold a user id.
    pub(super) template: &'static str,
    /// The query parameters. Any other is refused, because a misspelled one that is ignored gives the answer to another
    /// question.
    pub(super) parameters: &'static [&'static str],
    pub(super) operations: &'static [Operation],
    pub(super) kind: Kind,
}

/// What the service does differently for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Plain,
    /// A page for browsers: problems are pages too.
    Page,
    /// A probe of supervisors and load balancers, which use host names of their own.
    Probe,
    /// A response without an end.
    Stream,
    /// A response of any length, which ends early if its token is revoked.
    Export,
    /// No resource at all.
    Unknown,
}

/// What a method does on a resource.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    method: &'static str,
    pub(super) access: Access,
    /// Whether the address of the setting `public_listen` serves it, if it is part of the API.
    is_public: bool,
    pub(super) names: Names,
    /// Whether the token may come in the cookie of the page. Only reads may: the pages, and what their script requests.
    pub(super) takes_cookie: bool,
    /// Whether the token may come as clients of other programs send it: as `Authorization: Token`, as the user name or password of
    /// Basic authentication, or in the query parameter `p`.
    pub(super) takes_client_token: bool,
    /// Whether the response may be CSV instead of JSON.
    pub(super) has_csv: bool,
    /// The action in the audit trail, if each request is recorded there.
    pub(super) audited: Option<Audited>,
    /// Its description in the OpenAPI document. Pages are not in the document.
    pub(super) describe: Option<fn() -> Described>,
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
    /// In its `expr` parameter.
    InExpression,
    /// In its body or response: the handler accepts or returns only segments within the caller's reach. A request that names
    /// segments in `segment` parameters is refused if one of them is beyond it.
    Filtered,
    /// Nowhere: it is about all segments at once.
    Everything,
}

/// An action that the audit trail records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audited {
    Erase,
    Refresh,
    Archive,
    Coverage,
    SetSegment,
    DeleteSegment,
    EraseFromSegment,
    Merge,
    Export,
}

impl Audited {
    /// The `action` of the line.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Erase => "erase",
            Self::Refresh => "refresh",
            Self::Archive => "archive",
            Self::Coverage => "coverage",
            Self::SetSegment => "set_segment",
            Self::DeleteSegment => "delete_segment",
            Self::EraseFromSegment => "erase_from_segment",
            Self::Merge => "merge",
            Self::Export => "export",
        }
    }
}

/// Stands for every path without a resource.
pub(super) static UNKNOWN: Resource = Resource {
    template: "unknown",
    parameters: &[],
    operations: &[],
    kind: Kind::Unknown,
};

impl Operation {
    /// GET, and HEAD, which is the same without a body.
    pub(super) const fn get(access: Access) -> Self {
        Self::of("GET", access)
    }

    pub(super) const fn post(access: Access) -> Self {
        Self::of("POST", access)
    }

    pub(super) const fn put(access: Access) -> Self {
        Self::of("PUT", access)
    }

    pub(super) const fn delete(access: Access) -> Self {
        Self::of("DELETE", access)
    }

    const fn of(method: &'static str, access: Access) -> Self {
        Self {
            method,
            access,
            is_public: matches!(
                access,
                Access::Needs(Scope::Read | Scope::Write) | Access::InBody
            ),
            names: Names::Nothing,
            takes_cookie: false,
            takes_client_token: false,
            has_csv: false,
            audited: None,
            describe: None,
        }
    }

    /// Also on the public address, although it needs no token: clients check it before they write.
    pub(super) const fn public(self) -> Self {
        Self {
            is_public: true,
            ..self
        }
    }

    pub(super) const fn names(self, names: Names) -> Self {
        Self { names, ..self }
    }

    pub(super) const fn by_cookie(self) -> Self {
        Self {
            takes_cookie: true,
            ..self
        }
    }

    pub(super) const fn by_client_token(self) -> Self {
        Self {
            takes_client_token: true,
            ..self
        }
    }

    pub(super) const fn also_as_csv(self) -> Self {
        Self {
            has_csv: true,
            ..self
        }
    }

    pub(super) const fn audited(self, action: Audited) -> Self {
        Self {
            audited: Some(action),
            ..self
        }
    }

    pub(super) const fn described(self, describe: fn() -> Described) -> Self {
        Self {
            describe: Some(describe),
            ..self
        }
    }

    /// Whether the public address serves it: writes of pairs and reads of counts. The pages, which the API's document does not
    /// describe, are internal.
    fn is_public(&self) -> bool {
        self.is_public && self.describe.is_some()
    }
}

impl Resource {
    /// Whether there is a resource at the path.
    pub(super) fn exists(&self) -> bool {
        self.kind != Kind::Unknown
    }

    /// Whether `path` is one of this resource. A value in a path is not empty.
    pub(super) fn is_at(&self, path: &str) -> bool {
        let (mut ours, mut theirs) = (self.template.split('/'), path.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(value), Some(given)) if value.starts_with('{') && !given.is_empty() => {}
                (Some(name), Some(given)) if name == given => {}
                _ => return false,
            }
        }
    }

    /// The methods, each once.
    pub(super) fn methods(&self) -> impl Iterator<Item = &'static str> {
        self.operations.iter().flat_map(|operation| {
            let head = (operation.method == "GET").then_some("HEAD");
            [operation.method].into_iter().chain(head)
        })
    }

    /// Whether the public address serves requests with `method`. It refuses an unknown method as the other address does.
    pub(super) fn is_public(&self, method: &str) -> bool {
        match self.operation(method) {
            Some(operation) => operation.is_public(),
            None => self.operations.iter().any(Operation::is_public),
        }
    }

    /// The methods as an `Allow` header has them.
    pub(super) fn allow(&self) -> String {
        self.methods().collect::<Vec<_>>().join(", ")
    }

    /// What `method` does. HEAD is GET.
    pub(super) fn operation(&self, method: &str) -> Option<&'static Operation> {
        let method = if method == "HEAD" { "GET" } else { method };
        self.operations.iter().find(|it| it.method == method)
    }
}

/// The part of the path with this index, from 0, as the client sent it.
pub(super) fn part(
    index: usize,
) -> impl Filter<Extract = (String,), Error = std::convert::Infallible> + Copy {
    warp::path::full().map(move |path: FullPath| part_of(&path, index).to_owned())
}

/// The part of `path` with this index, from 0, as the client sent it.
pub(super) fn part_of(path: &FullPath, index: usize) -> &str {
    path.as_str().split('/').nth(index + 1).unwrap_or_default()
}
