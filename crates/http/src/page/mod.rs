//! The web page: rendered by the service, complete without its script, which only keeps it up to date.
//!
//! Nothing is loaded from another host, and the Content-Security-Policy of each page forbids inline scripts and styles. So
//! even a segment name that got past the escaping of the templates could not run as a script.

mod assets;
mod chart;
mod health;
mod history;
mod list;
mod segment;
mod shown;
mod sign_in;
mod state;

use std::sync::Arc;

use askama::Template;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::host::Authority;
use warp::http::Uri;
use warp::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use warp::http::{Response, StatusCode};
use warp::reply::Reply;

use self::history::History;
use super::authorization::Authorizer;
use super::body::Limits;
use super::problem::{Detail, Problem};
use super::query::{Query, query};
use super::resource::{Kind, Names, Operation, Resource, part};
use crate::access::Access;
use crate::auth::Scope;
use crate::settings::HttpSettings;
use domain::Reach;
use engine::Headcount;
use engine::readiness::Readiness;

pub(super) static LIST: Resource = Resource {
    template: "/",
    parameters: &["q", "sort", "order", "page"],
    operations: &[Operation::get(READ).names(Names::Filtered).by_cookie()],
    kind: Kind::Page,
};

pub(super) static SEGMENT: Resource = Resource {
    template: "/segments/{segment}",
    parameters: &["window", "range", "from", "to", "segment"],
    operations: &[Operation::get(READ).names(Names::InPath(1)).by_cookie()],
    kind: Kind::Page,
};

pub(super) static SIGN_IN: Resource = Resource {
    template: "/sign-in",
    parameters: &["next"],
    operations: &[Operation::get(Access::Open), Operation::post(Access::Open)],
    kind: Kind::Page,
};

pub(super) static SIGN_OUT: Resource = Resource {
    template: "/sign-out",
    parameters: &[],
    operations: &[Operation::post(Access::Open)],
    kind: Kind::Page,
};

/// A file of the pages. `v` is its version, which makes browsers load a new one.
pub(super) static ASSET: Resource = Resource {
    template: "/assets/{file}",
    parameters: &["v"],
    operations: &[Operation::get(Access::Open)],
    kind: Kind::Plain,
};

const READ: Access = Access::Needs(Scope::Read);

pub(super) use self::sign_in::wants_html;

/// The headers of every page.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Lets the browser send `Origin` with forms.
    (header::REFERRER_POLICY, "same-origin"),
    // Counts change all the time, and some need a session.
    (header::CACHE_CONTROL, "no-store"),
];

/// The state that pages are rendered from.
struct Pages {
    app: Arc<Headcount>,
    history: History,
    authorizer: Authorizer,
    /// The limits of form bodies.
    forms: Limits,
}

/// The data of the base template.
struct Shell {
    version: &'static str,
    /// Whether the page's script subscribes to `/v1/events`.
    events: bool,
    /// Whether the page has a sign-out button.
    signed_in: bool,
    /// The sentence about counts over the configured window while they are not complete.
    notice: Option<String>,
}

/// The page of a problem.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    shell: Shell,
    title: &'a str,
    detail: &'a str,
}

impl Shell {
    /// The shell of a page that is not updated.
    fn plain() -> Self {
        Self {
            version: &assets::VERSION,
            events: false,
            signed_in: false,
            notice: None,
        }
    }
}

impl Pages {
    fn shell(&self) -> Shell {
        Shell {
            version: &assets::VERSION,
            events: true,
            signed_in: self.authorizer.is_on(),
            notice: self.notice(),
        }
    }

    fn notice(&self) -> Option<String> {
        let window = self.app.frame().full_window();
        self.app.covered(window).notice(window)
    }

    /// The readiness of `Headcount`, with the components that are not part of it.
    async fn readiness(&self) -> Readiness {
        let mut readiness = self.app.readiness().await;
        readiness
            .components
            .extend(super::api::health::files(self.authorizer.auth()));
        readiness
    }
}

/// The handlers of all pages and of their files.
pub(super) fn handlers(
    app: &Arc<Headcount>,
    settings: &HttpSettings,
    authorizer: Authorizer,
) -> [(&'static Resource, BoxedFilter<(warp::reply::Response,)>); 5] {
    let pages = Arc::new(Pages {
        app: Arc::clone(app),
        history: History::default(),
        authorizer,
        forms: Limits::new(sign_in::MAX_FORM, settings.header_timeout),
    });
    let [listing, naming, entering, leaving] = [(); 4].map(|()| Arc::clone(&pages));
    let list = warp::get().and(query()).and(warp::ext::optional()).then(
        move |query: Query, reach: Option<Reach>| {
            let pages = Arc::clone(&listing);
            async move {
                let page = list::get(&pages, &query, &reach.unwrap_or_default()).await;
                page.unwrap_or_else(Reply::into_response)
            }
        },
    );
    let segment = warp::get()
        .and(part(1))
        .and(query())
        .then(move |name: String, query: Query| {
            let pages = Arc::clone(&pages);
            async move {
                let page = segment::get(&pages, &name, &query).await;
                page.unwrap_or_else(Reply::into_response)
            }
        });
    let form = warp::get().and(query()).map(move |query: Query| {
        sign_in::form(&naming, &query).unwrap_or_else(Reply::into_response)
    });
    let enter = warp::post()
        .and(warp::host::optional())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |host: Option<Authority>, headers, body| {
            let pages = Arc::clone(&entering);
            async move {
                let entered = sign_in::enter(&pages, host.as_ref(), &headers, body).await;
                entered.unwrap_or_else(Reply::into_response)
            }
        });
    let leave = warp::post()
        .and(warp::host::optional())
        .and(warp::header::headers_cloned())
        .map(move |host: Option<Authority>, headers: HeaderMap| {
            sign_in::leave(&leaving, host.as_ref(), &headers).unwrap_or_else(Reply::into_response)
        });
    let asset = warp::get()
        .and(part(1))
        .map(|name: String| assets::get(&name));
    [
        (&LIST, list.boxed()),
        (&SEGMENT, segment.boxed()),
        (&SIGN_IN, form.or(enter).unify().boxed()),
        (&SIGN_OUT, leave.boxed()),
        (&ASSET, asset.boxed()),
    ]
}

/// The response to a browser whose request for a page was refused: a redirect to the sign-in form if a sign-in may help.
pub(super) fn refused(problem: Problem, uri: &Uri) -> warp::reply::Response {
    match problem.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let mut response = sign_in::first(uri);
            // For the audit trail: the redirect is recorded as a refusal too.
            response.extensions_mut().insert(problem.code());
            response
        }
        _ => problem.into_response(),
    }
}

/// Turns a problem into a page. Other responses are unchanged.
pub(super) fn for_people(response: warp::reply::Response) -> warp::reply::Response {
    let Some(Detail(detail)) = response.extensions().get::<Detail>() else {
        return response;
    };
    let page = ProblemPage {
        shell: Shell::plain(),
        title: response.status().canonical_reason().unwrap_or("Error"),
        detail,
    };
    let Ok(body) = page.render() else {
        return response;
    };
    let (mut parts, _) = response.into_parts();
    for (name, value) in HEADERS {
        parts.headers.insert(name, HeaderValue::from_static(value));
    }
    let mut page = Response::new(body).into_response();
    *page.status_mut() = parts.status;
    *page.headers_mut() = parts.headers;
    *page.extensions_mut() = parts.extensions;
    page
}

/// A rendered page under `status`.
fn html(status: StatusCode, page: &impl Template) -> Result<warp::reply::Response, Problem> {
    let body = page
        .render()
        .map_err(|error| Problem::internal().caused_by(&error))?;
    let mut response = Response::new(body).into_response();
    *response.status_mut() = status;
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}
