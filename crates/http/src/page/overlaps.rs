//! `GET /overlaps`: the pairs of segments that share the most users. The page's script asks the API for them.

use askama::Template;
use warp::http::StatusCode;
use warp::reply::Response;

use super::health::{Health, Numbers};
use super::period::Choice;
use super::{Pages, Place, Shell, html};
use crate::problem::Problem;
use crate::query::Query;

/// The sort orders of the overlaps: the name in addresses, and the title.
const ORDERS: [(&str, &str); 3] = [
    ("both", "Users in both"),
    ("jaccard", "Similarity"),
    ("lift", "Lift"),
];

#[derive(Template)]
#[template(path = "overlaps.html")]
struct Page {
    shell: Shell,
    health: Health,
    orders: Vec<Choice>,
    order: &'static str,
    windows: Vec<Choice>,
    trouble: Option<String>,
    window: String,
    window_seconds: u64,
    /// The parameters that links to other pages keep.
    kept: String,
}

/// The pairs of segments that share the most users.
pub(super) async fn get(pages: &Pages, query: &Query) -> Result<Response, Problem> {
    let period = pages.period_of_sets(query)?;
    let readiness = pages.readiness();
    let numbers = match readiness.reads {
        true => Numbers::Good,
        false => Numbers::Failed,
    };
    let by = query.text("by")?.unwrap_or("");
    let known = ORDERS.into_iter().find(|order| order.0 == by);
    let (order, _) = known.unwrap_or(ORDERS[0]);
    let address = |name: &str| match name == ORDERS[0].0 {
        true => "/overlaps".to_owned(),
        false => format!("/overlaps?by={name}"),
    };
    let orders = ORDERS.into_iter().map(|(name, title)| Choice {
        short: title.to_owned(),
        title: title.to_owned(),
        link: period.link(&address(name)),
        current: name == order,
    });
    let page = Page {
        shell: pages.shell_with(Place::Overlaps, &period, &readiness, readiness.reads),
        health: Health::of(&readiness, numbers),
        orders: orders.collect(),
        order,
        windows: period.windows(&address(order)),
        trouble: period.trouble.clone(),
        window: period.window_words(),
        window_seconds: period.window.seconds(),
        kept: period.link(""),
    };
    html(StatusCode::OK, &page)
}
