//! `GET /`: the table of all segments. Search, sorting and paging are done by the service, so that the table works without
//! a script and with ten thousand segments.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use warp::http::StatusCode;
use warp::reply::Response;

use super::health::{Health, Numbers};
use super::history::{Change, SegmentHistory, Span, drawn};
use super::shown::Shown;
use super::state::{State, state};
use super::{Pages, Shell, html};
use crate::path::{encode, of_segment};
use crate::problem::Problem;
use crate::query::Query;
use domain::Reach;
use domain::text::{grouped, rounded};
use domain::{Count, Segment, Timestamp, shown};
use engine::counts;

/// Rows of a page.
const ROWS: usize = 50;
/// With more segments than this the table can't be sorted by change, because each change is a query to the store.
const MAX_SORTED_BY_CHANGE: usize = 1_000;
/// Longest search string, in characters.
const MAX_SEARCH: usize = 128;

type Listed = (Segment, Count);
type Histories = HashMap<Segment, Arc<SegmentHistory>>;

#[derive(Template)]
#[template(path = "list.html")]
struct Page<'a> {
    shell: Shell,
    health: Health,
    state: State,
    search: &'a str,
    view: View,
    /// Whether the counts could not be read. The table is then empty, although there may be segments.
    failed: bool,
    columns: Vec<Column>,
    rows: Vec<Row>,
    found: String,
    pages: usize,
    before: Option<String>,
    after: Option<String>,
}

struct Column {
    title: &'static str,
    /// The address of the table sorted by this column, if it is sortable.
    link: Option<String>,
    /// `ascending`, `descending` or `none`.
    sorted: &'static str,
}

struct Row {
    /// The exact name, for the page's script.
    name: String,
    /// The name with invisible characters escaped.
    shown: String,
    link: String,
    users: String,
    age: String,
    age_seconds: u64,
    changes: [(&'static str, Change); 3],
    line: Shown<(String, String)>,
}

/// The search, sort order and page of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    search: String,
    sort: Sort,
    descending: bool,
    /// From 1.
    page: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Name,
    Users,
    Change(Span),
}

/// Each sort order, its name in addresses, and the title of its column.
const SORTS: [(Sort, &str, &str); 5] = [
    (Sort::Name, "name", "Segment"),
    (Sort::Users, "users", "Users"),
    (Sort::Change(Span::Hour), "hour", "1 hour"),
    (Sort::Change(Span::Day), "day", "1 day"),
    (Sort::Change(Span::Week), "week", "1 week"),
];

impl View {
    /// Parses the query. The page ignores invalid values.
    fn of(query: &Query) -> Result<Self, Problem> {
        let search = query.text("q")?.unwrap_or("").trim();
        let sort = query.text("sort")?.unwrap_or("");
        let sort = SORTS.iter().find(|known| known.1 == sort);
        let sort = sort.map_or(Sort::Users, |known| known.0);
        let descending = match query.text("order")? {
            Some("asc") => false,
            Some("desc") => true,
            _ => sort != Sort::Name,
        };
        let page = query.text("page")?.and_then(|page| page.parse().ok());
        Ok(Self {
            search: search.chars().take(MAX_SEARCH).collect(),
            sort,
            descending,
            page: page.unwrap_or(1).max(1),
        })
    }

    fn sort_name(&self) -> &'static str {
        let known = SORTS.iter().find(|known| known.0 == self.sort);
        known.map_or("users", |known| known.1)
    }

    fn order(&self) -> &'static str {
        if self.descending { "desc" } else { "asc" }
    }

    fn link(&self) -> String {
        let search = match self.search.is_empty() {
            true => String::new(),
            false => format!("q={}&", encode(&self.search)),
        };
        let (sort, order, page) = (self.sort_name(), self.order(), self.page);
        format!("/?{search}sort={sort}&order={order}&page={page}")
    }

    fn at(&self, page: usize) -> String {
        Self {
            page,
            ..self.clone()
        }
        .link()
    }

    /// The address of the table sorted by `sort`. If it is sorted so already, in reverse order.
    fn sorted_by(&self, sort: Sort) -> String {
        let descending = match self.sort == sort {
            true => !self.descending,
            false => sort != Sort::Name,
        };
        Self {
            search: self.search.clone(),
            sort,
            descending,
            page: 1,
        }
        .link()
    }

    fn column(&self, sort: Sort, title: &'static str, sortable: bool) -> Column {
        Column {
            title,
            link: sortable.then(|| self.sorted_by(sort)),
            sorted: match (self.sort == sort, self.descending) {
                (false, _) => "none",
                (true, true) => "descending",
                (true, false) => "ascending",
            },
        }
    }
}

pub(super) async fn get(pages: &Pages, query: &Query, reach: &Reach) -> Result<Response, Problem> {
    let mut view = View::of(query)?;
    let app = &pages.app;
    let (listed, readiness) = tokio::join!(app.counts().list_own(), pages.readiness());
    let (status, mut list, numbers) = match listed {
        Ok(list) => {
            let numbers = trusted(&list, app.clock().now());
            let counted = list
                .iter()
                .filter_map(|listed| Some((listed.segment.clone(), listed.count?)));
            (StatusCode::OK, counted.collect(), numbers)
        }
        Err(error) => {
            tracing::warn!(%error, "the page has no counts to show");
            let status = StatusCode::SERVICE_UNAVAILABLE;
            (status, Vec::new(), Numbers::Failed)
        }
    };
    list.retain(|(segment, _)| reach.covers(segment.as_str()));
    let failed = numbers == Numbers::Failed;
    keep_found(&mut list, &view.search);
    let by_change = list.len() <= MAX_SORTED_BY_CHANGE;
    if !by_change && matches!(view.sort, Sort::Change(_)) {
        (view.sort, view.descending) = (Sort::Users, true);
    }
    let mut histories = Histories::new();
    if matches!(view.sort, Sort::Change(_)) {
        histories = pages.history.of(app, names(&list)).await;
    }
    sort(&mut list, &view, &histories);
    let last = list.len().div_ceil(ROWS).max(1);
    view.page = view.page.min(last);
    let found = list.len();
    let shown: Vec<_> = list
        .into_iter()
        .skip((view.page - 1) * ROWS)
        .take(ROWS)
        .collect();
    if !matches!(view.sort, Sort::Change(_)) {
        histories = pages.history.of(app, names(&shown)).await;
    }
    let now = app.clock().now();
    let rows = shown
        .iter()
        .map(|listed| row(listed, histories.get(&listed.0), now));
    let columns = SORTS.iter().map(|(sort, _, title)| {
        view.column(*sort, title, by_change || !matches!(sort, Sort::Change(_)))
    });
    let page = Page {
        shell: pages.shell(),
        health: Health::of(app, &readiness, numbers),
        state: state(app, &readiness, !failed),
        search: &view.search,
        failed,
        columns: columns.collect(),
        rows: rows.collect(),
        found: grouped(found as u64),
        pages: last,
        before: (view.page > 1).then(|| view.at(view.page - 1)),
        after: (view.page < last).then(|| view.at(view.page + 1)),
        view: view.clone(),
    };
    html(status, &page)
}

/// The state of a list, by the segments that could not be counted now.
fn trusted(list: &[counts::Listed], now: Timestamp) -> Numbers {
    if list.iter().any(|listed| listed.count.is_none()) {
        return Numbers::Partly;
    }
    let stale = list.iter().filter(|listed| listed.stale);
    let oldest = stale.filter_map(|listed| Some(listed.count?.as_of)).min();
    oldest.map_or(Numbers::Good, |oldest| {
        Numbers::Old(now.duration_since(oldest).unsigned_abs())
    })
}

/// Keeps the segments whose name contains `search`, ignoring case.
fn keep_found(list: &mut Vec<Listed>, search: &str) {
    if search.is_empty() {
        return;
    }
    let search = search.to_lowercase();
    list.retain(|(segment, _)| segment.as_str().to_lowercase().contains(&search));
}

fn names(list: &[Listed]) -> Vec<Segment> {
    list.iter().map(|(segment, _)| segment.clone()).collect()
}

/// Sorts a list that is sorted by name.
fn sort(list: &mut [Listed], view: &View, histories: &Histories) {
    match view.sort {
        Sort::Name if view.descending => list.reverse(),
        Sort::Name => {}
        Sort::Users if view.descending => {
            list.sort_by_key(|(_, count)| std::cmp::Reverse(count.users));
        }
        Sort::Users => list.sort_by_key(|(_, count)| count.users),
        Sort::Change(span) => list.sort_by_cached_key(|(segment, count)| {
            let history = histories.get(segment);
            let change = history.and_then(|history| history.change(span, count.users));
            // Unknown changes come last in both directions.
            let directed = change.map(|change| match view.descending {
                true => change.saturating_neg(),
                false => change,
            });
            (directed.is_none(), directed)
        }),
    }
}

fn row((segment, count): &Listed, history: Option<&Arc<SegmentHistory>>, now: Timestamp) -> Row {
    let age = now.duration_since(count.as_of);
    let age = std::time::Duration::try_from(age).unwrap_or_default();
    let change = |span| match history {
        Some(history) => Change::new(history.change(span, count.users)),
        None => Change::failed(),
    };
    Row {
        name: segment.to_string(),
        shown: shown(segment.as_str()),
        link: of_segment("/segments", segment.as_str(), ""),
        users: grouped(count.users),
        age: rounded(age),
        age_seconds: age.as_secs(),
        changes: [
            ("1 hour", change(Span::Hour)),
            ("1 day", change(Span::Day)),
            ("1 week", change(Span::Week)),
        ],
        line: match history {
            Some(history) => drawn(&history.line(count.users, now)).into(),
            None => Shown::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(counts: &[(&str, u64)]) -> Vec<Listed> {
        let as_of = Timestamp::UNIX_EPOCH;
        let one = |(name, users): &(&str, u64)| {
            let users = *users;
            (Segment::new(name).unwrap(), Count { users, as_of })
        };
        counts.iter().map(one).collect()
    }

    fn view(sort: Sort, descending: bool) -> View {
        View {
            search: "a&b".into(),
            sort,
            descending,
            page: 3,
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_sorted_both_ways() {
        let mut found = list(&[("Ärzte", 3), ("sports", 5), ("Winter Sports", 4)]);
        keep_found(&mut found, "SPORT");
        let mut order = |sort_by, descending| {
            found.sort_by(|left, right| left.0.cmp(&right.0));
            sort(&mut found, &view(sort_by, descending), &Histories::new());
            found[0].0.to_string()
        };
        assert_eq!(order(Sort::Users, true), "sports");
        assert_eq!(order(Sort::Users, false), "Winter Sports");
        assert_eq!(order(Sort::Name, true), "sports");
        keep_found(&mut found, "ä");
        assert!(found.is_empty());
    }

    #[test]
    fn links_keep_what_was_searched_for() {
        let view = view(Sort::Users, true);
        assert_eq!(view.at(4), "/?q=a%26b&sort=users&order=desc&page=4");
        assert_eq!(
            view.sorted_by(Sort::Users),
            "/?q=a%26b&sort=users&order=asc&page=1"
        );
        assert_eq!(
            view.sorted_by(Sort::Name),
            "/?q=a%26b&sort=name&order=asc&page=1"
        );
        assert_eq!(view.column(Sort::Users, "", true).sorted, "descending");
    }
}
