//! `GET /v1/segments`: segments with their counts, paged: all of them, or those that the request names.

pub(super) mod selection;

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::http::header::LINK;
use warp::reply::Response;

use self::selection::{MAX_SEGMENTS, Selection, users};
use super::Request;
use crate::access::Access;
use crate::auth::Scope;
use crate::covered::CoveredFields;
use crate::cursor::{Cursor, Sort};
use crate::document::{self, Document, tagged};
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::reply::rfc3339_or_null;
use crate::representation::Representation;
use crate::resource::{Kind, Names, Operation, Resource};
use domain::Timestamp;
use engine::Headcount;
use engine::counts::Listed;
use engine::segments::SegmentCatalog;

pub(super) static SEGMENTS: Resource = Resource {
    template: "/v1/segments",
    parameters: &[
        "prefix", "q", "segment", "window", "sort", "limit", "cursor",
    ],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::Filtered)
        .by_cookie()
        .also_as_csv()
        .described(describe)],
    kind: Kind::Plain,
};

pub(super) const DEFAULT_LIMIT: usize = 100;
pub(super) const MAX_LIMIT: usize = 1000;
/// The largest page in CSV, which has no `next` to follow: a spreadsheet has about as many rows.
const MAX_CSV_LIMIT: usize = 1_000_000;

/// A page of segments.
#[derive(Serialize, Hash, ToSchema)]
#[schema(as = SegmentList)]
pub(super) struct SegmentsResponse<'a> {
    segments: Vec<Entry<'a>>,
    /// The window of the request, or else the configured one.
    window_seconds: u64,
    /// The number of segments on all pages.
    total: usize,
    /// The `cursor` of the next page; null after the last.
    #[schema(required)]
    next: Option<String>,
    #[serde(flatten)]
    covered: CoveredFields,
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
    /// Distinct users, exact as of `as_of`. Null if they could not be counted and no earlier count is known, or
    /// if they are withheld.
    #[schema(required)]
    users: Option<u64>,
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    as_of: Option<Timestamp>,
    /// Whether the segment could not be counted now. `users` is then the last known count, or null.
    stale: bool,
    /// False if no pair of this segment was received within the configured window: perhaps the name is misspelled.
    known: bool,
    /// Whether the count is withheld, because it would reveal a group of fewer than `min_users` users.
    withheld: bool,
}

/// Without the instant of the count, as in the tag of a single one.
impl Hash for Entry<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            segment,
            window_seconds,
            description,
            group,
            users,
            as_of: _,
            stale,
            known,
            withheld,
        } = self;
        let settings = (window_seconds, description, group);
        (segment, settings, users, stale, known, withheld).hash(state);
    }
}

impl Document for SegmentsResponse<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "segment",
        "users",
        "window_seconds",
        "as_of",
        "stale",
        "known",
        "withheld",
    ];

    fn rows(&self) -> impl Iterator<Item: Serialize> {
        self.segments.iter().map(|entry| {
            (
                entry.segment,
                entry.users,
                entry.window_seconds,
                entry.as_of.map(|as_of| as_of.to_string()),
                entry.stale,
                entry.known,
                entry.withheld,
            )
        })
    }

    fn covered(&self) -> Option<CoveredFields> {
        Some(self.covered)
    }

    fn file_name(&self) -> String {
        "segments".to_owned()
    }

    fn as_of(&self) -> Option<Timestamp> {
        self.segments.iter().filter_map(|entry| entry.as_of).min()
    }
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::get(), app, get)
}

async fn get(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let Request { query, reach, .. } = &request;
    let representation = request.representation;
    let selection = Selection::of(query)?;
    let sort = match query.text("sort")? {
        None | Some("name") => Sort::Name,
        Some("users") => Sort::Users,
        Some(_) => return Err(Problem::invalid_parameter("sort", "must be name or users")),
    };
    let limit = match representation {
        Representation::Json => {
            let default = if selection.is_by_name() {
                MAX_LIMIT
            } else {
                DEFAULT_LIMIT
            };
            query.limit("limit", MAX_LIMIT, default)?
        }
        Representation::Csv => query.limit("limit", MAX_CSV_LIMIT, MAX_CSV_LIMIT)?,
    };
    let after = match query.text("cursor")? {
        None | Some("") => None,
        Some(text) => Some(Cursor::parse(text, sort).ok_or_else(|| {
            let detail = "must be the next of an earlier response with the same sort";
            Problem::invalid_parameter("cursor", detail)
        })?),
    };
    let window = query.window_of_counts(&app)?;
    let list = selection.list(&app, window, reach).await?;
    let mut rows = selection.rows(&list, reach);
    let window = window.unwrap_or_else(|| app.frame().full_window());
    if sort == Sort::Users {
        // The rows are sorted by name already, and the sort is stable.
        rows.sort_by_key(|row| std::cmp::Reverse(users(row)));
    }
    let counts = rows
        .iter()
        .filter_map(|row| Some((row.window, row.count?.as_of)));
    let covered = CoveredFields::of_all(&app, counts);
    let (shown, next) = page(&rows, sort, after.as_ref(), limit);
    // A list of all segments has only known ones.
    let named = shown
        .iter()
        .filter(|row| selection.is_by_name() && !row.withheld);
    let without_users = named.filter(|row| users(row) == 0);
    let unseen = app.unseen(without_users.map(|row| &row.segment)).await;
    let unseen: HashSet<_> = unseen.into_iter().collect();
    let entries = shown
        .iter()
        .map(|row| entry(row, !unseen.contains(&row.segment), app.segments()));
    let page = SegmentsResponse {
        segments: entries.collect(),
        window_seconds: window.seconds(),
        total: rows.len(),
        next,
        covered,
    };
    let mut response = tagged(&page, representation)?;
    // JSON has it in the document.
    if let (Representation::Csv, Some(next)) = (representation, &page.next) {
        let link = format!("<?{}>; rel=\"next\"", query.with("cursor", next));
        document::insert(response.headers_mut(), LINK, link);
    }
    Ok(response)
}

/// The rows of a page, and the cursor of the next one.
fn page<'a, 'b>(
    rows: &'a [&'b Listed],
    sort: Sort,
    after: Option<&Cursor>,
    limit: usize,
) -> (&'a [&'b Listed], Option<String>) {
    let start = after.map_or(0, |cursor| {
        rows.partition_point(|row| !cursor.is_before(&row.segment, users(row)))
    });
    let end = rows.len().min(start + limit);
    let page = &rows[start..end];
    let last = page.last().filter(|_| end < rows.len());
    let next = last.map(|row| Cursor::at(sort, &row.segment, users(row)).to_string());
    (page, next)
}

fn entry<'a>(listed: &'a Listed, known: bool, catalog: &SegmentCatalog) -> Entry<'a> {
    let settings = catalog.settings(&listed.segment);
    Entry {
        segment: listed.segment.as_str(),
        window_seconds: listed.window.seconds(),
        description: settings.description().map(str::to_owned),
        group: settings.group().map(str::to_owned),
        users: listed.count.map(|count| count.users),
        as_of: listed.count.map(|count| count.as_of),
        stale: listed.stale,
        known,
        withheld: listed.withheld,
    }
}

fn describe() -> Described {
    Described::new(
        "getSegments",
        "counts",
        "List segments with their counts",
        "In pages: repeat the request with `cursor` until `next` is null. Without `window`, each segment is counted over its \
         own window, if it has one. With `segment`, the list has exactly the named segments, \
         also those without users. CSV has all segments in one response, unless there is a `limit`; then the header `link` has the \
         next page.",
    )
    .takes(parameters::segments(
        "Exactly this segment, also if it has no users. The parameter may be repeated; `prefix` and `q` apply as well.",
        MAX_SEGMENTS,
    ))
    .takes(parameters::prefix())
    .takes(parameters::part_of_name())
    .takes(parameters::window())
    .takes(parameters::sort())
    .takes(parameters::limit(
        "The maximum number of segments. JSON: at most 1,000; the default is 100, or with `segment` 1,000. CSV: the default is all.",
        MAX_CSV_LIMIT,
    ))
    .takes(parameters::cursor())
    .answers_tagged::<SegmentsResponse<'static>>(
        "A page of segments.",
        serde_json::json!({
            "segments": [{"segment": "sports", "window_seconds": 1_209_600, "users": 123, "as_of": "2026-11-21T08:00:00Z", "stale": false, "known": true, "withheld": false}],
            "window_seconds": 1_209_600, "total": 1, "next": null,
            "covered_since": "2026-11-01T00:00:00Z", "complete": true
        }),
        "segment,users,window_seconds,as_of,stale,known,withheld\r\nsports,123,1209600,2026-11-21T08:00:00Z,false,true,false\r\n",
    )
    .fails(&[codes::INVALID_SEGMENT, codes::INVALID_PARAMETER, codes::INVALID_WINDOW, codes::UNAVAILABLE])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use domain::{Count, Segment, TimeFrame};

    fn list(sort: Sort, counts: &[(&str, u64)]) -> Vec<Listed> {
        let as_of = Timestamp::UNIX_EPOCH;
        let minute = Duration::from_secs(60);
        let frame = TimeFrame::new(minute, minute, minute).unwrap();
        let row = |(name, users): &(&str, u64)| Listed {
            segment: Segment::new(name).unwrap(),
            window: frame.full_window(),
            count: (*users > 0).then_some(Count {
                users: *users,
                as_of,
            }),
            withheld: false,
            stale: *users == 0,
        };
        let mut list: Vec<_> = counts.iter().map(row).collect();
        list.sort_by(|left, right| left.segment.cmp(&right.segment));
        if sort == Sort::Users {
            list.sort_by_key(|row| std::cmp::Reverse(users(row)));
        }
        list
    }

    /// The names of a page, and the cursor of the next one.
    fn page_of(
        list: &[Listed],
        sort: Sort,
        after: Option<&Cursor>,
        limit: usize,
    ) -> (Vec<String>, Option<String>) {
        let rows: Vec<_> = list.iter().collect();
        let (page, next) = page(&rows, sort, after, limit);
        let names = page.iter().map(|row| row.segment.as_str().to_owned());
        (names.collect(), next)
    }

    fn walk(sort: Sort, list: &[Listed], limit: usize) -> Vec<String> {
        let (mut names, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = page_of(list, sort, cursor.as_ref(), limit);
            names.extend(page);
            match next {
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
        let (_, next) = page_of(&before, Sort::Users, None, 2);
        let cursor = Cursor::parse(&next.unwrap(), Sort::Users).unwrap();
        // The segment at the cursor has grown, and one before it is no longer listed.
        let after = list(Sort::Users, &[("b", 10), ("c", 7), ("d", 6)]);
        let (names, next) = page_of(&after, Sort::Users, Some(&cursor), 2);
        assert_eq!(names, ["c", "d"]);
        assert_eq!(next, None);
    }
}
