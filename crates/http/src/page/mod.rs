//! The web page: rendered by the service, complete without its script, which only keeps it up to date.
//!
//! Nothing is loaded from another host, and the Content-Security-Policy of each page forbids inline scripts and styles. So
//! even a segment name that got past the escaping of the templates could not run as a script.

mod assets;
mod chart;
mod combine;
mod compare;
mod everybody;
mod expiring;
mod export;
mod graph;
mod groups;
mod health;
mod history;
mod list;
mod look;
mod overlaps;
mod period;
mod segment;
mod shown;
mod sign_in;
mod slider;
mod state;
mod status;
mod trends;
mod view;
mod words;

use std::sync::Arc;

use askama::Template;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::host::Authority;
use warp::http::Uri;
use warp::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use warp::http::{Response, StatusCode};
use warp::reply::Reply;

use self::everybody::Everybody;
use self::history::History;
use self::period::Period;
use super::authorization::Authorizer;
use super::body::Limits;
use super::problem::{Detail, Problem};
use super::query::{Query, query};
use super::resource::{Kind, Names, Operation, Resource, part};
use crate::access::Access;
use crate::auth::Scope;
use crate::settings::HttpSettings;
use domain::text::grouped;
use domain::{Floor, Reach, Window};
use engine::Headcount;
use engine::readiness::Readiness;

pub(super) static LIST: Resource = Resource {
    template: "/",
    parameters: &[
        "q", "group", "segment", "sort", "order", "page", "range", "from", "to", "window",
    ],
    operations: &[Operation::get(READ).names(Names::Filtered).by_cookie()],
    kind: Kind::Page,
};

/// The table as a file.
pub(super) static SEGMENTS_FILE: Resource = Resource {
    template: "/segments.csv",
    kind: Kind::Plain,
    ..LIST
};

pub(super) static SEGMENT: Resource = Resource {
    template: "/segments/{segment}",
    parameters: &["range", "from", "to", "window", "before", "base", "segment"],
    operations: &[Operation::get(READ).names(Names::InPath(1)).by_cookie()],
    kind: Kind::Page,
};

pub(super) static COMPARE: Resource = Resource {
    template: "/compare",
    parameters: &["segment", "range", "from", "to", "window", "base"],
    operations: &[Operation::get(READ).names(Names::Filtered).by_cookie()],
    kind: Kind::Page,
};

/// The points of a chart as a file.
pub(super) static TRENDS_FILE: Resource = Resource {
    template: "/trends.csv",
    parameters: &["segment", "range", "from", "to", "window"],
    operations: &[Operation::get(READ).names(Names::InQuery).by_cookie()],
    kind: Kind::Plain,
};

pub(super) static COMBINE: Resource = Resource {
    template: "/combine",
    parameters: &["expr", "range", "from", "to", "window"],
    operations: &[Operation::get(READ).by_cookie()],
    kind: Kind::Page,
};

pub(super) static OVERLAPS: Resource = Resource {
    template: "/overlaps",
    parameters: &["by", "range", "from", "to", "window"],
    operations: &[Operation::get(READ).by_cookie()],
    kind: Kind::Page,
};

pub(super) static STATUS: Resource = Resource {
    template: "/status",
    parameters: &["range", "from", "to", "window"],
    operations: &[Operation::get(READ).by_cookie()],
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
    everybody: Everybody,
    /// The privacy floor.
    floor: Floor,
    authorizer: Authorizer,
    /// The limits of form bodies.
    forms: Limits,
}

/// The data of the base template.
struct Shell {
    version: &'static str,
    /// Whether the page's script subscribes to `/v1/events`.
    events: bool,
    /// Whether the page takes a walk over many users, so that it is fetched less often.
    is_slow: bool,
    /// Whether the page has a sign-out button.
    signed_in: bool,
    /// The sentence about counts over the window of the page while they are not complete.
    notice: Option<String>,
    nav: Vec<NavLink>,
    /// Whether the page may have more than the form that it has.
    has_tools: bool,
    /// A summary of the service's state: its kind and its words.
    state: Option<(&'static str, &'static str)>,
    /// The parameters that links to other pages keep.
    kept: String,
}

/// A page of the site. Each is in its navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Segments,
    Compare,
    Combine,
    Overlaps,
    Status,
}

impl Place {
    /// Whether the page shows counts of segments, which events bring up to date.
    fn has_counts_of_segments(self) -> bool {
        matches!(self, Self::Segments | Self::Compare)
    }
}

struct NavLink {
    title: &'static str,
    link: String,
    current: bool,
}

/// The pages in the navigation, with their titles and addresses.
const NAV: [(Place, &str, &str); 4] = [
    (Place::Segments, "Segments", "/"),
    (Place::Compare, "Compare", "/compare"),
    (Place::Combine, "Combine", "/combine"),
    (Place::Overlaps, "Overlaps", "/overlaps"),
];

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
            is_slow: false,
            signed_in: false,
            notice: None,
            nav: Vec::new(),
            has_tools: false,
            state: None,
            kept: String::new(),
        }
    }
}

impl Pages {
    /// The shell of the page at `place`. `has_counts` is whether the page has counts to show.
    fn shell_with(
        &self,
        place: Place,
        period: &Period,
        readiness: &Readiness,
        has_counts: bool,
    ) -> Shell {
        let state = state::state(&self.app, readiness, has_counts);
        let nav = NAV.into_iter().map(|(page, title, address)| NavLink {
            title,
            link: period.link(address),
            current: page == place,
        });
        Shell {
            version: &assets::VERSION,
            // Events have the counts of each segment over its usual window.
            events: place.has_counts_of_segments() && period.is_usual_window(),
            is_slow: place == Place::Combine,
            signed_in: self.authorizer.is_on(),
            notice: self.notice(period.window),
            nav: nav.collect(),
            has_tools: true,
            state: Some((state.kind, state.summary)),
            kept: period.link(""),
        }
    }

    /// The range and the window of a page about counts of segments.
    fn period(&self, query: &Query) -> Result<Period, Problem> {
        self.period_with(self.app.frame().full_window(), query)
    }

    /// The same for a page whose window is `usual` unless the reader wants another one.
    fn period_with(&self, usual: Window, query: &Query) -> Result<Period, Problem> {
        let (app, known) = (&self.app, self.app.counts().windows());
        Period::of(query, app.frame(), usual, known, app.clock().now())
    }

    /// The range and the window of a page about sets of segments. With a floor, they are counted over the configured window.
    fn period_of_sets(&self, query: &Query) -> Result<Period, Problem> {
        let app = &self.app;
        let full = app.frame().full_window();
        let known = self.floor.is_on().then_some(std::slice::from_ref(&full));
        Period::of(query, app.frame(), full, known, app.clock().now())
    }

    /// Why a count over the window of `period` is not shown.
    fn withheld(&self, period: &Period) -> String {
        let few = format!("ewer than {} users", grouped(self.floor.users()));
        match period.is_full_window() {
            true => format!("F{few}"),
            // It may differ by too few users from a count over a longer window.
            false => format!("Withheld: it would reveal a group of f{few}"),
        }
    }

    fn notice(&self, window: Window) -> Option<String> {
        self.app.covered(window).notice(window)
    }

    /// The readiness of `Headcount`, with the components that are not part of it.
    fn readiness(&self) -> Readiness {
        let mut readiness = self.app.readiness();
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
) -> Vec<(&'static Resource, BoxedFilter<(warp::reply::Response,)>)> {
    let pages = Arc::new(Pages {
        app: Arc::clone(app),
        history: History::default(),
        everybody: Everybody::default(),
        floor: app.counts().floor(),
        authorizer,
        forms: Limits::new(sign_in::MAX_FORM, settings.header_timeout),
    });
    let [naming, entering, leaving, of_segment] = [(); 4].map(|()| Arc::clone(&pages));
    let segment = warp::get()
        .and(part(1))
        .and(query())
        .and(warp::ext::optional())
        .then(move |name: String, query: Query, reach: Option<Reach>| {
            let pages = Arc::clone(&of_segment);
            async move {
                let reach = reach.unwrap_or_default();
                let page = segment::get(&pages, &name, &query, &reach).await;
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
    vec![
        (&LIST, queried(&pages, Queried::List)),
        (&SEGMENTS_FILE, queried(&pages, Queried::SegmentsFile)),
        (&SEGMENT, segment.boxed()),
        (&COMPARE, queried(&pages, Queried::Compare)),
        (&TRENDS_FILE, queried(&pages, Queried::TrendsFile)),
        (&COMBINE, queried(&pages, Queried::Combine)),
        (&OVERLAPS, queried(&pages, Queried::Overlaps)),
        (&STATUS, queried(&pages, Queried::Status)),
        (&SIGN_IN, form.or(enter).unify().boxed()),
        (&SIGN_OUT, leave.boxed()),
        (&ASSET, asset.boxed()),
    ]
}

/// A page or a file that its query alone determines.
#[derive(Debug, Clone, Copy)]
enum Queried {
    List,
    SegmentsFile,
    Compare,
    TrendsFile,
    Combine,
    Overlaps,
    Status,
}

fn queried(pages: &Arc<Pages>, which: Queried) -> BoxedFilter<(warp::reply::Response,)> {
    let pages = Arc::clone(pages);
    warp::get()
        .and(query())
        .and(warp::ext::optional())
        .then(move |query: Query, reach: Option<Reach>| {
            let pages = Arc::clone(&pages);
            async move {
                let reach = reach.unwrap_or_default();
                let page = match which {
                    Queried::List => list::get(&pages, &query, &reach).await,
                    Queried::SegmentsFile => export::segments(&pages, &query, &reach).await,
                    Queried::Compare => compare::get(&pages, &query, &reach).await,
                    Queried::TrendsFile => export::trends(&pages, &query).await,
                    Queried::Combine => combine::get(&pages, &query, &reach).await,
                    Queried::Overlaps => overlaps::get(&pages, &query).await,
                    Queried::Status => status::get(&pages, &query).await,
                };
                page.unwrap_or_else(Reply::into_response)
            }
        })
        .boxed()
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
