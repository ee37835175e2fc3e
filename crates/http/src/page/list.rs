//! `GET /`: the table of all segments. Search, sorting and paging are done by the service, so that the table works without
//! a script and with ten thousand segments.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use warp::http::StatusCode;
use warp::reply::Response;

use super::graph::Moment;
use super::groups::{Group, SizedGroup, sized};
use super::health::{Health, Numbers};
use super::history::{SegmentHistory, drawn};
use super::period::{Choice, Period};
use super::shown::Shown;
use super::trends;
use super::view::{SORTS, Sort, View};
use super::words::{Change, length, plural};
use super::{Pages, Place, Shell, html};
use crate::path::of_segment;
use crate::problem::Problem;
use crate::query::Query;
use domain::Reach;
use domain::text::{grouped, rounded};
use domain::{Segment, Timestamp, Window, shown};
use engine::counts::{CountError, Listed};

/// Rows of a page.
const ROWS: usize = 50;
/// With more segments than this the table can't be sorted by change, because each change is a query to the store.
const MAX_SORTED_BY_CHANGE: usize = 1_000;
/// The groups that are visible without a click.
const GROUPS: usize = 8;

type Histories = HashMap<Segment, Arc<SegmentHistory>>;

#[derive(Template)]
#[template(path = "list.html")]
struct Page {
    shell: Shell,
    health: Health,
    view: View,
    /// The parameters of the range and the window, for the forms.
    fields: Vec<(&'static str, String)>,
    ranges: Vec<Choice>,
    windows: Vec<Choice>,
    /// Why the window in the address is invalid.
    trouble: Option<String>,
    unrecorded: Option<String>,
    window: String,
    range: String,
    /// Whether a row has a window of its own.
    has_own: bool,
    /// The most frequent groups, the others, and the address of all segments.
    groups: Vec<GroupLink>,
    more_groups: Vec<GroupLink>,
    every: String,
    /// Whether the table has every segment.
    is_every: bool,
    /// Why a count is withheld.
    withheld: String,
    /// Whether the counts could not be read. The table is then empty, although there may be segments.
    failed: bool,
    /// The users in any segment, if they are known.
    everybody: Option<String>,
    columns: Vec<Column>,
    rows: Vec<Row>,
    found: String,
    pages: usize,
    before: Option<String>,
    after: Option<String>,
    as_of: Option<Moment>,
    csv: String,
    curl: String,
}

struct GroupLink {
    name: String,
    segments: String,
    link: String,
    current: bool,
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
    description: Option<String>,
    /// The window of the count, if it is not the one of the table.
    own_window: Option<String>,
    /// `None` if the count is withheld.
    users: Option<String>,
    /// The age of a count that is the last known one.
    last_known: Option<String>,
    change: Change,
    line: Shown<(String, String)>,
}

/// The segments of a request that have a count or whose count is withheld, sorted, with what else the page or the file needs.
pub(super) struct Found {
    pub(super) list: Vec<Listed>,
    pub(super) numbers: Numbers,
    /// Why there are no counts.
    pub(super) failure: Option<CountError>,
    groups: Vec<SizedGroup>,
    by_change: bool,
    histories: Histories,
}

pub(super) async fn get(pages: &Pages, query: &Query, reach: &Reach) -> Result<Response, Problem> {
    let mut view = View::of(query)?;
    let app = &pages.app;
    let period = pages.period(query)?;
    let (found, everybody) = tokio::join!(
        found(pages, &mut view, &period, reach),
        pages
            .everybody
            .users(app, period.window, reach, pages.floor)
    );
    let readiness = pages.readiness();
    let failed = found.numbers == Numbers::Failed;
    let status = match failed {
        false => StatusCode::OK,
        true => StatusCode::SERVICE_UNAVAILABLE,
    };
    let last = found.list.len().div_ceil(ROWS).max(1);
    view.page = view.page.min(last);
    let number = found.list.len();
    let shown: Vec<_> = found
        .list
        .into_iter()
        .skip((view.page - 1) * ROWS)
        .take(ROWS)
        .collect();
    let histories = match view.sort.needs_history() {
        true => found.histories,
        false => pages.history.of(app, keys(&shown), &period).await,
    };
    let now = app.clock().now();
    let rows: Vec<_> = shown
        .iter()
        .map(|listed| {
            let history = histories.get(&listed.segment);
            let settings = app.segments().settings(&listed.segment);
            row(listed, history, settings.description(), &period, now)
        })
        .collect();
    let columns = SORTS.iter().map(|(sort, _, title)| {
        let sortable = found.by_change || !sort.needs_history();
        column(&view, &period, *sort, title, sortable)
    });
    let mut links = group_links(found.groups, &view, &period);
    let more_groups = links.split_off(GROUPS.min(links.len()));
    let address = View {
        page: 1,
        ..view.clone()
    };
    let page = Page {
        shell: pages.shell_with(Place::Segments, &period, &readiness, !failed),
        health: Health::of(&readiness, found.numbers),
        fields: period.fields(),
        ranges: period.ranges(&address.link()),
        windows: period.windows(&address.link()),
        trouble: period.trouble.clone(),
        unrecorded: trends::unrecorded(app.counts().refreshed_windows(), &period),
        window: period.window_words(),
        range: period.range_words(),
        has_own: rows.iter().any(|row| row.own_window.is_some()),
        groups: links,
        more_groups,
        every: period.link("/"),
        is_every: view.is_every(),
        withheld: pages.withheld(&period),
        failed,
        everybody: everybody.map(|users| plural(users, "user")),
        columns: columns.collect(),
        as_of: shown
            .iter()
            .filter_map(|listed| Some(listed.count?.as_of.as_second()))
            .min()
            .map(Moment::of),
        rows,
        found: plural(number as u64, "segment"),
        pages: last,
        before: (view.page > 1).then(|| period.link(&view.at(view.page - 1))),
        after: (view.page < last).then(|| period.link(&view.at(view.page + 1))),
        csv: period.link(&address.link_to("/segments.csv")),
        curl: format!("/v1/segments?sort=users&window={}", period.window.seconds()),
        view,
    };
    html(status, &page)
}

/// The segments that `view` asks for, sorted. It changes the sort order of `view` if that needs too many histories.
pub(super) async fn found(pages: &Pages, view: &mut View, period: &Period, reach: &Reach) -> Found {
    let app = &pages.app;
    let counted = match period.is_usual_window() {
        true => app.counts().list_own().await,
        false => app.counts().list(period.window).await,
    };
    let (mut list, numbers, failure): (Vec<Listed>, _, _) = match counted {
        Ok(list) => {
            let numbers = trusted(&list, app.clock().now());
            let known = list
                .iter()
                .filter(|listed| listed.count.is_some() || listed.withheld);
            (known.cloned().collect(), numbers, None)
        }
        Err(error) => {
            tracing::warn!(%error, "the page has no counts to show");
            (Vec::new(), Numbers::Failed, Some(error))
        }
    };
    list.retain(|listed| reach.covers(listed.segment.as_str()));
    let group = |listed: &Listed| {
        let settings = app.segments().settings(&listed.segment);
        Group::of(&listed.segment, &settings)
    };
    let of_segments: Vec<Option<Group>> = list.iter().map(group).collect();
    let groups = sized(of_segments.iter().flatten());
    let mut of_segments = of_segments.into_iter();
    list.retain(|listed| {
        let group = of_segments.next().flatten();
        let group = group.as_ref().map(|group| group.name.as_str());
        view.includes(&listed.segment, group)
    });
    let by_change = list.len() <= MAX_SORTED_BY_CHANGE;
    if !by_change && view.sort.needs_history() {
        (view.sort, view.descending) = (Sort::Users, true);
    }
    let histories = match view.sort.needs_history() {
        true => pages.history.of(app, keys(&list), period).await,
        false => Histories::new(),
    };
    sort(&mut list, view, &histories);
    Found {
        list,
        numbers,
        failure,
        groups,
        by_change,
        histories,
    }
}

/// The state of a list, by the segments that could not be counted now.
fn trusted(list: &[Listed], now: Timestamp) -> Numbers {
    let mut listed = list.iter();
    if listed.any(|listed| listed.count.is_none() && !listed.withheld) {
        return Numbers::Partly;
    }
    let stale = list.iter().filter(|listed| listed.stale);
    let oldest = stale.filter_map(|listed| Some(listed.count?.as_of)).min();
    oldest.map_or(Numbers::Good, |oldest| {
        Numbers::Old(now.duration_since(oldest).unsigned_abs())
    })
}

fn keys(list: &[Listed]) -> Vec<(Segment, Window)> {
    let listed = list.iter();
    listed
        .map(|listed| (listed.segment.clone(), listed.window))
        .collect()
}

/// Sorts a list that is sorted by name.
fn sort(list: &mut [Listed], view: &View, histories: &Histories) {
    // What is unknown or withheld comes last in both directions, by name.
    let directed = |number: Option<i128>| {
        let number = number.map(|number| if view.descending { -number } else { number });
        (number.is_none(), number)
    };
    let users = |listed: &Listed| listed.count.map(|count| count.users);
    match view.sort {
        Sort::Name if view.descending => list.reverse(),
        Sort::Name => {}
        Sort::Users => list.sort_by_key(|listed| directed(users(listed).map(i128::from))),
        Sort::Change => list.sort_by_cached_key(|listed| {
            let change = || histories.get(&listed.segment)?.change(users(listed)?);
            directed(change().map(i128::from))
        }),
        Sort::Percent => list.sort_by_cached_key(|listed| {
            let change = || {
                histories
                    .get(&listed.segment)?
                    .relative_change(users(listed)?)
            };
            directed(change())
        }),
    }
}

fn column(view: &View, period: &Period, sort: Sort, title: &'static str, sortable: bool) -> Column {
    Column {
        title,
        link: sortable.then(|| period.link(&view.sorted_by(sort))),
        sorted: match (view.sort == sort, view.descending) {
            (false, _) => "none",
            (true, true) => "descending",
            (true, false) => "ascending",
        },
    }
}

fn group_links(groups: Vec<SizedGroup>, view: &View, period: &Period) -> Vec<GroupLink> {
    let link = |group: SizedGroup| GroupLink {
        link: period.link(&view.of_group(&group.name)),
        current: view.group == group.name,
        segments: grouped(group.segments as u64),
        name: group.name,
    };
    groups.into_iter().map(link).collect()
}

fn row(
    listed: &Listed,
    history: Option<&Arc<SegmentHistory>>,
    description: Option<&str>,
    period: &Period,
    now: Timestamp,
) -> Row {
    let segment = &listed.segment;
    let users = listed.count.map(|count| count.users);
    let stale = listed.count.filter(|_| listed.stale);
    let age = stale.map(|count| now.duration_since(count.as_of).unsigned_abs());
    Row {
        name: segment.to_string(),
        shown: shown(segment.as_str()),
        link: period.link(&of_segment("/segments", segment.as_str(), "")),
        description: description.map(str::to_owned),
        own_window: (listed.window != period.window).then(|| length(listed.window.seconds())),
        users: users.map(grouped),
        last_known: age.map(rounded),
        change: match (history, users) {
            (Some(history), Some(users)) => Change::between(history.before, users),
            (_, None) => Change::withheld(),
            (None, _) => Change::failed(),
        },
        line: match history {
            Some(history) => drawn(&history.line(users, period)).into(),
            None => Shown::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use domain::{Count, TimeFrame};

    #[test]
    fn a_list_is_sorted_both_ways() {
        let as_of = Timestamp::UNIX_EPOCH;
        let minute = Duration::from_mins(1);
        let window = TimeFrame::new(minute, minute, minute)
            .unwrap()
            .full_window();
        let one = |(name, users): (&str, Option<u64>)| Listed {
            segment: Segment::new(name).unwrap(),
            window,
            count: users.map(|users| Count { users, as_of }),
            withheld: users.is_none(),
            stale: false,
        };
        let counts = [("a", Some(5)), ("b", Some(3)), ("c", Some(4)), ("d", None)];
        let mut list = counts.map(one);
        let mut sorted = |by, descending| {
            list.sort_by(|left, right| left.segment.cmp(&right.segment));
            let view = View {
                sort: by,
                descending,
                ..View::of(&Query::default()).unwrap()
            };
            sort(&mut list, &view, &Histories::new());
            list.each_ref()
                .map(|listed| listed.segment.to_string())
                .concat()
        };
        // The count of `d` is withheld.
        assert_eq!(sorted(Sort::Users, true), "acbd");
        assert_eq!(sorted(Sort::Users, false), "bcad");
        assert_eq!(sorted(Sort::Name, true), "dcba");
        assert_eq!(
            sorted(Sort::Change, true),
            "abcd",
            "without histories by name"
        );
        assert_eq!(trusted(&list, as_of), Numbers::Good);
        list[0].count = None;
        assert_eq!(trusted(&list, as_of), Numbers::Partly);
    }
}
