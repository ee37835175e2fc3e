//! `headcount trend SEGMENT...`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Failure;
use super::args::{OutputFormat, TrendArgs};
use super::client::{Client, valid};
use super::output::{grouped, note, print, print_csv, print_json, sanitized};
use super::variables::Variables;

/// The fields of a response that are displayed.
#[derive(Deserialize)]
struct Trends {
    trends: Vec<Trend>,
}

#[derive(Deserialize)]
struct Trend {
    segment: String,
    points: Vec<Point>,
    known: bool,
}

#[derive(Deserialize)]
struct Point {
    at: String,
    /// Missing if the service withholds it.
    users: Option<u64>,
    /// Missing if it is not known.
    entered: Option<u64>,
    left: Option<u64>,
}

const PATH: [&str; 2] = ["v1", "trends"];

pub(super) async fn run(args: TrendArgs, variables: &Variables) -> Result<(), Failure> {
    for name in &args.segments {
        valid(name)?;
    }
    let client = Client::new(&args.target, variables)?;
    let request = request(&args);
    let format = args.output.format();
    if format == OutputFormat::Csv {
        return print_csv(&client.post_for_csv(&PATH, &request).await?);
    }
    let document = client.post(&PATH, &request).await?;
    let response = Trends::deserialize(&document).map_err(|error| client.unexpected(&error))?;
    match format {
        OutputFormat::Json => print_json(&document)?,
        _ => print(&table(&response.trends))?,
    }
    if !args.output.quiet {
        for remark in response.trends.iter().filter_map(remark) {
            note(&remark);
        }
    }
    Ok(())
}

/// The body of the request: the given arguments.
fn request(args: &TrendArgs) -> Value {
    let mut members = Map::new();
    members.insert("segments".to_owned(), args.segments.clone().into());
    let optional = [
        ("window", &args.window),
        ("from", &args.from),
        ("to", &args.to),
        ("step", &args.step),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            members.insert(name.to_owned(), value.as_str().into());
        }
    }
    members.into()
}

/// A note about a trend without points.
fn remark(trend: &Trend) -> Option<String> {
    let segment = sanitized(&trend.segment);
    match (trend.points.is_empty(), trend.known) {
        (false, _) => None,
        (true, true) => Some(format!("`{segment}` has no points in this range")),
        (true, false) => Some(format!("`{segment}` was never seen")),
    }
}

/// A number, or a dash.
fn shown(number: Option<u64>) -> String {
    number.map_or("-".into(), grouped)
}

/// Names are the last column and need no padding: their display width is unknown.
fn table(trends: &[Trend]) -> String {
    let points = || trends.iter().flat_map(|trend| &trend.points);
    let at = points().map(|point| point.at.chars().count());
    let at = at.max().unwrap_or(0).max("AT".len());
    let width = |name: &str, number: fn(&Point) -> Option<u64>| {
        let widths = points().map(|point| shown(number(point)).len());
        widths.max().unwrap_or(0).max(name.len())
    };
    let users = width("USERS", |point| point.users);
    let entered = width("ENTERED", |point| point.entered);
    let left = width("LEFT", |point| point.left);
    let mut text = format!(
        "{:at$}  {:>users$}  {:>entered$}  {:>left$}  SEGMENT\n",
        "AT", "USERS", "ENTERED", "LEFT"
    );
    for trend in trends {
        let segment = sanitized(&trend.segment);
        for point in &trend.points {
            text += &format!(
                "{:at$}  {:>users$}  {:>entered$}  {:>left$}  {segment}\n",
                sanitized(&point.at),
                shown(point.users),
                shown(point.entered),
                shown(point.left),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        trend: TrendArgs,
    }

    #[test]
    fn only_given_arguments_are_sent() {
        let body = |arguments: &[&str]| {
            let arguments = ["trend"].iter().chain(arguments);
            request(&Arguments::try_parse_from(arguments).unwrap().trend)
        };
        assert_eq!(body(&["a"]), json!({"segments": ["a"]}));
        assert_eq!(
            body(&[
                "a", "b", "--step", "1h", "--from", "1", "--to", "2", "--window", "7d"
            ]),
            json!({"segments": ["a", "b"], "step": "1h", "from": "1", "to": "2", "window": "7d"})
        );
    }

    #[test]
    fn people_read_a_row_for_each_point() {
        let point = |at: &str, users| Point {
            at: at.to_owned(),
            users: Some(users),
            entered: (users > 5).then_some(1_000),
            left: (users > 5).then_some(7),
        };
        let trend = |segment: &str, points, known| Trend {
            segment: segment.to_owned(),
            points,
            known,
        };
        let trends = [
            trend("a", vec![point("08:00", 1_234), point("09:00", 5)], true),
            trend("b", vec![], true),
            trend("c\u{1b}", vec![], false),
        ];
        assert_eq!(
            table(&trends),
            "AT     USERS  ENTERED  LEFT  SEGMENT\n\
             08:00  1,234    1,000     7  a\n\
             09:00      5        -     -  a\n"
        );
        let remarks: Vec<_> = trends.iter().filter_map(remark).collect();
        assert_eq!(
            remarks,
            [
                "`b` has no points in this range",
                "`c\u{fffd}` was never seen"
            ]
        );
    }
}
