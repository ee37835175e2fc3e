//! The page for people: rendered here, whole without its script, and kept current by it.
//!
//! Nothing comes from another host, and the policy sent with each page allows no inline script or style: a name that
//! would get past the templates' escaping still could not run.

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
use warp::filters::BoxedFilter;
use warp::host::Authority;
use warp::http::Uri;
use warp::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use warp::http::{Response, StatusCode};
use warp::reply::Reply;
use warp::{Filter, path};

use self::history::History;
use super::body::Limits;
use super::gate::Gate;
use super::problem::{Detail, Problem};
use super::query::{Query, query};
use super::route::Route;
use crate::settings::HttpSettings;
use domain::Reach;
use engine::Headcount;
use engine::readiness::Readiness;

pub(super) use self::sign_in::wants_html;

/// What every page is sent with.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Enough for the browser to say on a form which page it came from.
    (header::REFERRER_POLICY, "same-origin"),
    // Counts are of the moment, and some are for those alone who signed in.
    (header::CACHE_CONTROL, "no-store"),
];

/// What the pages are made from.
struct Pages {
    app: Arc<Headcount>,
    history: History,
    gate: Gate,
    /// What a form may be.
    forms: Limits,
}

/// What is around each page.
struct Shell {
    version: &'static str,
    /// Whether changes are pushed.
    events: bool,
    /// Whether there is somebody to sign out.
    signed_in: bool,
}

/// What stands where a page should be.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    shell: Shell,
    title: &'a str,
    detail: &'a str,
}

impl Shell {
    /// That of a page that nobody keeps current.
    fn plain() -> Self {
        Self {
            version: &assets::VERSION,
            events: false,
            signed_in: false,
        }
    }
}

impl Pages {
    fn shell(&self) -> Shell {
        Shell {
            version: &assets::VERSION,
            events: Route::of("/v1/events") != Route::Unknown,
            signed_in: self.gate.is_on(),
        }
    }

    /// How the parts of the service are, those among them that are no part of `Headcount`.
    async fn readiness(&self) -> Readiness {
        let mut readiness = self.app.readiness().await;
        readiness
            .components
            .extend(super::health::files(self.gate.auth()));
        readiness
    }
}

/// The routes.
pub(super) fn route(
    app: &Arc<Headcount>,
    settings: &HttpSettings,
    gate: Gate,
) -> BoxedFilter<(warp::reply::Response,)> {
    let pages = Arc::new(Pages {
        app: Arc::clone(app),
        history: History::default(),
        gate,
        forms: Limits::new(sign_in::MAX_FORM, settings.header_timeout),
    });
    let [listing, naming, entering, leaving] = [(); 4].map(|()| Arc::clone(&pages));
    let list = path::end()
        .and(warp::get())
        .and(query())
        .and(warp::ext::optional())
        .then(move |query: Query, reach: Option<Reach>| {
            let pages = Arc::clone(&listing);
            async move {
                let page = list::get(&pages, &query, &reach.unwrap_or_default()).await;
                page.unwrap_or_else(Reply::into_response)
            }
        });
    let segment = path!("segments" / String)
        .and(warp::get())
        .and(query())
        .then(move |name: String, query: Query| {
            let pages = Arc::clone(&pages);
            async move {
                let page = segment::get(&pages, &name, &query).await;
                page.unwrap_or_else(Reply::into_response)
            }
        });
    let form = path!("sign-in")
        .and(warp::get())
        .and(query())
        .map(move |query: Query| {
            sign_in::form(&naming, &query).unwrap_or_else(Reply::into_response)
        });
    let enter = path!("sign-in")
        .and(warp::post())
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
    let leave = path!("sign-out")
        .and(warp::post())
        .and(warp::host::optional())
        .and(warp::header::headers_cloned())
        .map(move |host: Option<Authority>, headers: HeaderMap| {
            sign_in::leave(&leaving, host.as_ref(), &headers).unwrap_or_else(Reply::into_response)
        });
    let asset = path!("assets" / String)
        .and(warp::get())
        .map(|name: String| assets::get(&name));
    list.or(segment)
        .unify()
        .or(asset)
        .unify()
        .or(form)
        .unify()
        .or(enter)
        .unify()
        .or(leave)
        .unify()
        .boxed()
}

/// What a person sees instead of a page that the gate refuses: the form, where signing in would help.
pub(super) fn refused(problem: Problem, uri: &Uri) -> warp::reply::Response {
    match problem.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let mut response = sign_in::first(uri);
            // For the audit trail: a token that lets nobody in is refused, whatever the reader sees.
            response.extensions_mut().insert(problem.code());
            response
        }
        _ => problem.into_response(),
    }
}

/// A response as a person reads it: a problem becomes a page.
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
