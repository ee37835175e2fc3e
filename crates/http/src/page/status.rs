//! `GET /status`: the state of the service by component, for those who operate it.

use askama::Template;
use warp::http::StatusCode;
use warp::reply::Response;

use super::health::{Health, Numbers};
use super::state::{State, state};
use super::{Pages, Place, Shell, html};
use crate::problem::Problem;
use crate::query::Query;

#[derive(Template)]
#[template(path = "status.html")]
struct Page {
    shell: Shell,
    health: Health,
    state: State,
}

pub(super) async fn get(pages: &Pages, query: &Query) -> Result<Response, Problem> {
    let app = &pages.app;
    let period = pages.period(query)?;
    let counts = app.counts().list(app.frame().full_window()).await;
    let readiness = pages.readiness();
    let numbers = match counts {
        Ok(_) => Numbers::Good,
        Err(_) => Numbers::Failed,
    };
    let page = Page {
        shell: pages.shell_with(Place::Status, &period, &readiness, counts.is_ok()),
        health: Health::of(&readiness, numbers),
        state: state(app, &readiness, counts.is_ok()),
    };
    html(StatusCode::OK, &page)
}
