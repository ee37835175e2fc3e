//! `GET /v1/segments`: the segments with their counts, in pages.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};
use warp::{Filter, path};

use super::cursor::{Cursor, Sort};
use super::problem::Problem;
use super::query::{Query, query};
use super::reply::{json, rfc3339};
use crate::app::Headcount;
use crate::auth::Reach;
use crate::domain::{Count, Segment, Timestamp};

pub(super) const DEFAULT_LIMIT: usize = 100;
pub(super) const MAX_LIMIT: usize = 1000;

/// A page of segments.
#[derive(Serialize, ToSchema)]
#[schema(as = Segments)]
pub(super) struct Document<'a> {
    segments: Vec<Entry<'a>>,
    /// The `cursor` of the next page; null after the last.
    #[schema(required)]
    next: Option<String>,
}

/// A segment and its count over the configured window.
#[derive(Serialize, ToSchema)]
#[schema(as = SegmentCount)]
struct Entry<'a> {
    segment: &'a str,
    users: u64,
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
}

/// The route.
pub(super) fn route(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    path!("v1" / "segments")
        .and(warp::get())
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
            let detail = "must be the next of an earlier answer with the same sort";
            Problem::invalid_parameter("cursor", detail)
        })?),
    };
    let mut list = app.counts().list().await?;
    list.retain(|(segment, _)| {
        let name = segment.as_str();
        name.starts_with(prefix) && reach.covers(name)
    });
    if sort == Sort::Users {
        // The list came sorted by name; the sort is stable.
        list.sort_by_key(|(_, count)| std::cmp::Reverse(count.users));
    }
    Ok(json(&page(&list, sort, after.as_ref(), limit)))
}

fn page<'a>(
    list: &'a [(Segment, Count)],
    sort: Sort,
    after: Option<&Cursor>,
    limit: usize,
) -> Document<'a> {
    let start = after.map_or(0, |cursor| {
        list.partition_point(|(segment, count)| !cursor.is_before(segment, count.users))
    });
    let end = list.len().min(start + limit);
    let entry = |(segment, count): &'a (Segment, Count)| Entry {
        segment: segment.as_str(),
        users: count.users,
        as_of: count.as_of,
    };
    let next = match list[start..end].last() {
        Some((segment, count)) if end < list.len() => {
            Some(Cursor::at(sort, segment, count.users).to_string())
        }
        _ => None,
    };
    Document {
        segments: list[start..end].iter().map(entry).collect(),
        next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(sort: Sort, counts: &[(&str, u64)]) -> Vec<(Segment, Count)> {
        let as_of = Timestamp::UNIX_EPOCH;
        let mut list: Vec<_> = counts
            .iter()
            .map(|(name, users)| {
                (
                    Segment::new(name).unwrap(),
                    Count {
                        users: *users,
                        as_of,
                    },
                )
            })
            .collect();
        list.sort_by(|left, right| left.0.cmp(&right.0));
        if sort == Sort::Users {
            list.sort_by_key(|(_, count)| std::cmp::Reverse(count.users));
        }
        list
    }

    fn walk(sort: Sort, list: &[(Segment, Count)], limit: usize) -> Vec<String> {
        let (mut names, mut cursor) = (Vec::new(), None);
        loop {
            let page = page(list, sort, cursor.as_ref(), limit);
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
        ];
        for limit in 1..8 {
            assert_eq!(
                walk(Sort::Name, &list(Sort::Name, &counts), limit),
                ["a", "a/b", "b", "c", "d", "🏀"]
            );
            assert_eq!(
                walk(Sort::Users, &list(Sort::Users, &counts), limit),
                ["b", "a/b", "c", "d", "🏀", "a"]
            );
        }
    }

    #[test]
    fn a_change_between_pages_moves_only_what_changed() {
        let before = list(Sort::Users, &[("a", 9), ("b", 8), ("c", 7), ("d", 6)]);
        let first = page(&before, Sort::Users, None, 2);
        let cursor = Cursor::parse(&first.next.unwrap(), Sort::Users).unwrap();
        // The segment at the cursor grew, and one before it went.
        let after = list(Sort::Users, &[("b", 10), ("c", 7), ("d", 6)]);
        let second = page(&after, Sort::Users, Some(&cursor), 2);
        let names: Vec<_> = second.segments.iter().map(|entry| entry.segment).collect();
        assert_eq!(names, ["c", "d"]);
        assert_eq!(second.next, None);
    }
}
