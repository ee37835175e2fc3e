//! `GET /v1/segments`: all segments with their counts, paged.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use crate::access::Access;
use crate::auth::Scope;
use crate::cursor::{Cursor, Sort};
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::reply::json;
use crate::resource::{Kind, Names, Operation, Resource};
use domain::Reach;
use domain::{Segment, Timestamp, Window};
use engine::Headcount;
use engine::counts::Listed;
use engine::segments::SegmentCatalog;

pub(super) static SEGMENTS: Resource = Resource {
    template: "/v1/segments",
    parameters: &["prefix", "window", "sort", "limit", "cursor"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::Filtered)
        .by_cookie()
        .described(describe)],
    kind: Kind::Plain,
};

pub(super) const DEFAULT_LIMIT: usize = 100;
pub(super) const MAX_LIMIT: usize = 1000;

/// A page of segments.
#[derive(Serialize, ToSchema)]
#[schema(as = Segments)]
pub(super) struct SegmentsResponse<'a> {
    segments: Vec<Entry<'a>>,
    /// The window of the request, or else the configured one.
    window_seconds: u64,
    /// The `cursor` of the next page; null after the last.
    #[schema(required)]
    next: Option<String>,
}

/// A segment and its count.
#[derive(Serialize, ToSchema)]
#[schema(as = SegmentCount)]
struct Entry<'a> {
    segment: &'a str,
    /// The window that was counted.
    window_seconds: u64,
    /// As it was set for the segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    description: Option<String>,
    /// As it was set for the segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    group: Option<String>,
    /// Distinct users, exact as of `as_of`. Null if they could not be counted and no earlier count is known.
    #[schema(required)]
    users: Option<u64>,
    #[serde(serialize_with = "instant")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    as_of: Option<Timestamp>,
    /// Whether the segment could not be counted now. `users` is then the last known count, or null.
    stale: bool,
}

fn instant<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    warp::get()
        .and(query())
        .and(warp::ext::optional())
        .then(move |query: Query, reach: Option<Reach>| {
            let app = Arc::clone(&app);
            async move {
                get(&app, &query, &reach.unwrap_or_default())
                    .await
                    .unwrap_or_else(Reply::into_response)
            }
        })
        .boxed()
}

async fn get(app: &Headcount, query: &Query, reach: &Reach) -> Result<Response, Problem> {
    let prefix = query.text("prefix")?.unwrap_or("");
    let sort = match query.text("sort")? {
        None | Some("name") => Sort::Name,
        Some("users") => Sort::Users,
        Some(_) => return Err(Problem::invalid_parameter("sort", "must be name or users")),
    };
    let limit = query.limit("limit", MAX_LIMIT, DEFAULT_LIMIT)?;
    let after = match query.text("cursor")? {
        None | Some("") => None,
        Some(text) => Some(Cursor::parse(text, sort).ok_or_else(|| {
            let detail = "must be the next of an earlier response with the same sort";
            Problem::invalid_parameter("cursor", detail)
        })?),
    };
    let window = query.given_window(app.frame())?;
    let list = match window {
        Some(window) => app.counts().list(window).await?,
        None => app.counts().list_own().await?,
    };
    let window = window.unwrap_or_else(|| app.frame().full_window());
    let mut list: Vec<&Listed> = list.iter().collect();
    list.retain(|listed| {
        let name = listed.segment.as_str();
        name.starts_with(prefix) && reach.covers(name)
    });
    if sort == Sort::Users {
        // The list is sorted by name already, and the sort is stable.
        list.sort_by_key(|listed| std::cmp::Reverse(users(listed)));
    }
    let mut page = page(&list, window, sort, after.as_ref(), limit);
    page.describe(app.segments());
    Ok(json(&page))
}

/// The sort key by users. A segment without a count comes last.
fn users(listed: &Listed) -> u64 {
    listed.count.map_or(0, |count| count.users)
}

fn page<'a>(
    list: &[&'a Listed],
    window: Window,
    sort: Sort,
    after: Option<&Cursor>,
    limit: usize,
) -> SegmentsResponse<'a> {
    let start = after.map_or(0, |cursor| {
        list.partition_point(|listed| !cursor.is_before(&listed.segment, users(listed)))
    });
    let end = list.len().min(start + limit);
    let entry = |listed: &&'a Listed| Entry {
        segment: listed.segment.as_str(),
        window_seconds: listed.window.seconds(),
        description: None,
        group: None,
        users: listed.count.map(|count| count.users),
        as_of: listed.count.map(|count| count.as_of),
        stale: listed.stale,
    };
    let next = match list[start..end].last() {
        Some(listed) if end < list.len() => {
            Some(Cursor::at(sort, &listed.segment, users(listed)).to_string())
        }
        _ => None,
    };
    SegmentsResponse {
        segments: list[start..end].iter().map(entry).collect(),
        window_seconds: window.seconds(),
        next,
    }
}

impl SegmentsResponse<'_> {
    /// Adds what was set for the segments.
    fn describe(&mut self, catalog: &SegmentCatalog) {
        for entry in &mut self.segments {
            let Ok(segment) = Segment::new(entry.segment) else {
                continue;
            };
            let settings = catalog.settings(&segment);
            entry.description = settings.description().map(str::to_owned);
            entry.group = settings.group().map(str::to_owned);
        }
    }
}

fn describe() -> Described {
    Described::new(
        "getSegments",
        "counts",
        "List segments with their counts",
        "In pages: repeat the request with `cursor` until `next` is null. Without `window`, each segment is counted over its own \
         window, if it has one.",
    )
    .takes(parameters::prefix())
    .takes(parameters::window())
    .takes(parameters::sort())
    .takes(parameters::limit(MAX_LIMIT, DEFAULT_LIMIT))
    .takes(parameters::cursor())
    .answers::<SegmentsResponse<'static>>(
        200,
        "A page of segments.",
        serde_json::json!({
            "segments": [{"segment": "sports", "window_seconds": 1_209_600, "users": 123, "as_of": "2026-11-21T08:00:00Z", "stale": false}],
            "window_seconds": 1_209_600, "next": null
        }),
    )
    .fails(&[codes::INVALID_PARAMETER, codes::INVALID_WINDOW, codes::UNAVAILABLE])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use domain::{Count, TimeFrame};

    fn list(sort: Sort, counts: &[(&str, u64)]) -> Vec<Listed> {
        let as_of = Timestamp::UNIX_EPOCH;
        let minute = Duration::from_secs(60);
        let frame = TimeFrame::new(minute, minute, minute).unwrap();
        let listed = |(name, users): &(&str, u64)| Listed {
            segment: Segment::new(name).unwrap(),
            window: frame.full_window(),
            count: (*users > 0).then_some(Count {
                users: *users,
                as_of,
            }),
            stale: *users == 0,
        };
        let mut list: Vec<_> = counts.iter().map(listed).collect();
        list.sort_by(|left, right| left.segment.cmp(&right.segment));
        if sort == Sort::Users {
            list.sort_by_key(|listed| std::cmp::Reverse(users(listed)));
        }
        list
    }

    fn page_of<'a>(
        list: &'a [Listed],
        sort: Sort,
        after: Option<&Cursor>,
        limit: usize,
    ) -> SegmentsResponse<'a> {
        let minute = Duration::from_secs(60);
        let frame = TimeFrame::new(minute, minute, minute).unwrap();
        let list: Vec<_> = list.iter().collect();
        page(&list, frame.full_window(), sort, after, limit)
    }

    fn walk(sort: Sort, list: &[Listed], limit: usize) -> Vec<String> {
        let (mut names, mut cursor) = (Vec::new(), None);
        loop {
            let page = page_of(list, sort, cursor.as_ref(), limit);
            names.extend(page.segments.iter().map(|entry| entry.segment.to_owned()));
            match page.next {
                Some(next) => cursor = Some(Cursor::parse(&next, sort).unwrap()),
                None => return names,
            }
        }
    }

    #[test]
    fn pages_join_to_the_whole() {
        let counts = [
            ("a", 1),
            ("b", 9),
            ("c", 5),
            ("d", 5),
            ("🏀", 5),
            ("a/b", 7),
            ("not counted", 0),
        ];
        for limit in 1..8 {
            assert_eq!(
                walk(Sort::Name, &list(Sort::Name, &counts), limit),
                ["a", "a/b", "b", "c", "d", "not counted", "🏀"]
            );
            assert_eq!(
                walk(Sort::Users, &list(Sort::Users, &counts), limit),
                ["b", "a/b", "c", "d", "🏀", "a", "not counted"]
            );
        }
    }

    #[test]
    fn a_change_between_pages_moves_only_what_changed() {
        let before = list(Sort::Users, &[("a", 9), ("b", 8), ("c", 7), ("d", 6)]);
        let first = page_of(&before, Sort::Users, None, 2);
        let cursor = Cursor::parse(&first.next.unwrap(), Sort::Users).unwrap();
        // The segment at the cursor has grown, and one before it is no longer listed.
        let after = list(Sort::Users, &[("b", 10), ("c", 7), ("d", 6)]);
        let second = page_of(&after, Sort::Users, Some(&cursor), 2);
        let names: Vec<_> = second.segments.iter().map(|entry| entry.segment).collect();
        assert_eq!(names, ["c", "d"]);
        assert_eq!(second.next, None);
    }
}
