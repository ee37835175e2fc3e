//! `headcount segments`.

mod watch;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::Failure;
use crate::cli::args::{OutputFormat, SegmentsArgs, Sort};
use crate::cli::client::Client;
use crate::cli::coverage::Covered;
use crate::cli::output::{grouped, note, print, print_csv, print_json, sanitized};
use crate::cli::variables::Variables;

/// The number of segments per request.
const PAGE: u64 = 1_000;
/// The path of the list.
const LIST: [&str; 2] = ["v1", "segments"];

#[derive(Deserialize)]
struct Page {
    segments: Vec<Value>,
    next: Option<String>,
    #[serde(flatten)]
    covered: Covered,
}

/// A segment of the list.
#[derive(Deserialize)]
struct Row {
    segment: String,
    users: Option<u64>,
    #[serde(default)]
    withheld: bool,
    as_of: Option<String>,
    /// Whether `users` is the last known count, because no newer one is available.
    #[serde(default)]
    stale: bool,
}

#[derive(Serialize)]
struct Listing {
    segments: Vec<Value>,
    #[serde(flatten)]
    covered: Covered,
}

pub(super) async fn run(args: SegmentsArgs, variables: &Variables) -> Result<(), Failure> {
    let client = Client::new(&args.target, variables)?;
    if args.watch {
        return watch::run(&client, args).await;
    }
    let format = args.output.format();
    if format == OutputFormat::Csv {
        // All segments in one response: a page can't be told from the list.
        let limit = args.limit.map(|limit| limit.to_string());
        let query = query(&args, limit.as_deref());
        return print_csv(&client.get_csv(&LIST, &query).await?);
    }
    let listing = list(&client, &args).await?;
    let rows: Result<Vec<Row>, _> = listing.segments.iter().map(Row::deserialize).collect();
    let rows = rows.map_err(|error| client.unexpected(&error))?;
    match format {
        OutputFormat::Json => print_json(&listing)?,
        _ => print(&table(&rows))?,
    }
    if !args.output.quiet {
        let incomplete = listing.covered.remark().filter(|_| !rows.is_empty());
        let remarks = remarks(&rows, &args, client.has_token());
        for remark in remarks.into_iter().chain(incomplete) {
            note(&remark);
        }
    }
    Ok(())
}

/// Notes about a list that is empty or has stale or missing counts.
fn remarks(rows: &[Row], args: &SegmentsArgs, has_token: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    // A token may be restricted to some segments. The list omits all others.
    let readable = if has_token {
        " that this token may read"
    } else {
        ""
    };
    match (&args.prefix, &args.search) {
        _ if !rows.is_empty() => {}
        (Some(prefix), None) => remarks.push(format!(
            "no segment{readable} begins with `{}`",
            sanitized(prefix)
        )),
        (None, Some(part)) => remarks.push(format!(
            "no segment{readable} has `{}` in its name",
            sanitized(part)
        )),
        (Some(_), Some(_)) => remarks.push(format!("no segment{readable} matches")),
        (None, None) => remarks.push(format!("there are no segments{readable}")),
    }
    let stale = rows.iter().filter(|row| row.stale).count();
    if stale > 0 {
        remarks.push(format!(
            "warning: {stale} counts are stale: no source has newer ones"
        ));
    }
    let missing = rows
        .iter()
        .filter(|row| row.users.is_none() && !row.withheld)
        .count();
    if missing > 0 {
        remarks.push(format!("warning: {missing} segments can't be counted now"));
    }
    remarks
}

/// Reads pages until the end of the list or `--limit`.
pub(super) async fn all(client: &Client, args: &SegmentsArgs) -> Result<Vec<Value>, Failure> {
    Ok(list(client, args).await?.segments)
}

async fn list(client: &Client, args: &SegmentsArgs) -> Result<Listing, Failure> {
    let most = args.limit.unwrap_or(u64::MAX);
    let mut segments = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let missing = most - segments.len() as u64;
        let limit = missing.min(PAGE).to_string();
        let mut query = query(args, Some(&limit));
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor));
        }
        let document = client.get(&LIST, &query).await?;
        let page = Page::deserialize(document).map_err(|error| client.unexpected(&error))?;
        let received = page.segments.len();
        segments.extend(page.segments);
        segments.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        let done = segments.len() as u64 >= most || page.next.is_none();
        if done {
            return Ok(Listing {
                segments,
                covered: page.covered,
            });
        }
        // An empty page with a next cursor, or an unchanged cursor, would loop forever.
        if received == 0 || page.next == cursor {
            return Err(client.unexpected(&"its cursor does not move").into());
        }
        cursor = page.next;
    }
}

/// The query of the list.
fn query<'a>(args: &'a SegmentsArgs, limit: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
    let sort = args.sort.map(|sort| match sort {
        Sort::Name => "name",
        Sort::Users => "users",
    });
    let parameters = [
        ("limit", limit),
        ("prefix", args.prefix.as_deref()),
        ("q", args.search.as_deref()),
        ("sort", sort),
    ];
    let given = parameters.into_iter();
    given
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// Names are the last column and need no padding: their display width is unknown.
fn table(rows: &[Row]) -> String {
    let users = rows.iter().map(|row| users_of(row).len());
    let users = users.max().unwrap_or(0).max("USERS".len());
    let instants = rows
        .iter()
        .map(|row| row.as_of.as_deref().unwrap_or("-").chars().count());
    let as_of = instants.max().unwrap_or(0).max("AS OF".len());
    let mut text = format!("{:>users$}  {:as_of$}  SEGMENT\n", "USERS", "AS OF");
    for row in rows {
        text += &line(row, users, as_of);
    }
    text
}

/// A row of the table, with columns of at least these widths.
fn line(row: &Row, users: usize, as_of: usize) -> String {
    let instant = sanitized(row.as_of.as_deref().unwrap_or("-"));
    let segment = sanitized(&row.segment);
    let stale = if row.stale { "  (stale)" } else { "" };
    format!(
        "{:>users$}  {instant:as_of$}  {segment}{stale}\n",
        users_of(row)
    )
}

fn users_of(row: &Row) -> String {
    row.users.map_or("-".into(), grouped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test_server::TestServer;
    use serde_json::json;
    use std::collections::HashMap;
    use warp::Filter;

    fn arguments(limit: Option<u64>) -> SegmentsArgs {
        SegmentsArgs {
            prefix: Some("a&b".into()),
            sort: Some(Sort::Users),
            limit,
            ..SegmentsArgs::everything()
        }
    }

    /// A list of segments from 0 to `most`, in pages of up to three. The cursor is the number of the next segment.
    async fn service(most: u64) -> TestServer {
        TestServer::start(warp::path!("v1" / "segments").and(warp::query()).map(
            move |query: HashMap<String, String>| {
                assert_eq!(
                    (query["prefix"].as_str(), query["sort"].as_str()),
                    ("a&b", "users")
                );
                let from: u64 = query
                    .get("cursor")
                    .map_or(0, |cursor| cursor.parse().unwrap());
                let limit: u64 = query["limit"].parse().unwrap();
                let to = (from + limit.min(3)).min(most);
                let rows: Vec<_> = (from..to)
                    .map(|n| json!({"segment": n.to_string(), "users": n}))
                    .collect();
                let next = (to < most).then(|| to.to_string());
                warp::reply::json(&json!({"segments": rows, "next": next}))
            },
        ))
        .await
    }

    #[tokio::test]
    async fn cursors_are_followed_to_the_end_or_the_limit() {
        let server = service(8).await;
        let client = Client::to(&server.url, None).unwrap();
        for (limit, expected) in [(None, 8), (Some(1), 1), (Some(4), 4), (Some(9), 8)] {
            let segments = all(&client, &arguments(limit)).await.unwrap();
            assert_eq!(segments.len(), expected);
            assert_eq!(segments[expected - 1]["users"], expected - 1);
        }
    }

    #[tokio::test]
    async fn a_cursor_that_stands_still_does_not_keep_us() {
        let server = TestServer::start(
            warp::any()
                .map(|| warp::reply::json(&json!({"segments": [{"segment": "a"}], "next": "x"}))),
        )
        .await;
        let client = Client::to(&server.url, None).unwrap();
        assert!(all(&client, &arguments(None)).await.is_err());
    }

    #[test]
    fn what_is_old_or_missing_is_remarked_on() {
        let row = |users, stale| Row {
            segment: "a".into(),
            users,
            withheld: false,
            as_of: None,
            stale,
        };
        let every = SegmentsArgs::everything();
        assert!(remarks(&[row(Some(1), false)], &every, false).is_empty());
        assert_eq!(remarks(&[], &every, false), ["there are no segments"]);
        assert_eq!(
            remarks(&[], &every, true),
            ["there are no segments that this token may read"]
        );
        let mut some = SegmentsArgs::everything();
        some.prefix = Some("x".into());
        assert_eq!(remarks(&[], &some, false), ["no segment begins with `x`"]);
        some.search = Some("y".into());
        assert_eq!(remarks(&[], &some, false), ["no segment matches"]);
        some.prefix = None;
        assert_eq!(
            remarks(&[], &some, false),
            ["no segment has `y` in its name"]
        );
        let rows = [row(Some(1), true), row(None, false)];
        let told = remarks(&rows, &every, false).concat();
        assert!(
            told.contains("1 counts are stale") && told.contains("1 segments can't be counted")
        );
        assert!(table(&rows).contains("a  (stale)\n"));
    }

    #[test]
    fn columns_are_aligned() {
        let row = |segment: &str, users, as_of: Option<&str>| Row {
            segment: segment.into(),
            users,
            withheld: false,
            as_of: as_of.map(str::to_owned),
            stale: false,
        };
        let rows = [
            row("🏀 ball", Some(1_234_567), Some("2026-11-21T08:00:00Z")),
            row("a", None, None),
        ];
        assert_eq!(
            table(&rows),
            "    USERS  AS OF                 SEGMENT\n\
             1,234,567  2026-11-21T08:00:00Z  🏀 ball\n        \
             -  -                     a\n"
        );
    }
}
