//! `headcount segments --watch`: prints the list repeatedly, until Ctrl-C or until standard output is a closed pipe.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Row, all, line, table};
use crate::cli::Failure;
use crate::cli::args::{OutputFormat, SegmentsArgs};
use crate::cli::client::Client;
use crate::cli::output::{is_on_screen, note, print_on};

/// A person does not read faster, and a list costs the service little.
const INTERVAL: Duration = Duration::from_secs(2);
/// The default of `--limit` on a terminal.
const SCREEN: u64 = 20;
/// Moves the cursor home and erases everything below. Unlike clearing the screen first, this does not flicker.
const REDRAW: &str = "\x1b[H\x1b[J";
const CLEAR: &str = "\x1b[2J";

/// Shows the list until Ctrl-C: on a terminal as a table that is redrawn, elsewhere as a line for each change.
pub(super) async fn run(client: &Client, mut args: SegmentsArgs) -> Result<(), Failure> {
    let format = args.output.format();
    if format == OutputFormat::Csv {
        return Err(Failure::usage("--watch prints a table or JSON, and no CSV"));
    }
    let on_screen = format == OutputFormat::Table && is_on_screen();
    if on_screen {
        args.limit = args.limit.or(Some(SCREEN));
        print_on(CLEAR)?;
    }
    let rounds = async {
        // A failure of the first request is an error. Later failures are retried.
        let mut segments = all(client, &args).await?;
        let mut changes = Changes::default();
        loop {
            let text = match on_screen {
                true => format!("{REDRAW}{}", table(&rows(client, &segments)?)),
                false => changes.lines(client, segments, &args)?,
            };
            if !print_on(&text)? {
                return Ok(());
            }
            segments = next(client, &args).await;
        }
    };
    tokio::select! {
        ended = rounds => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// The list after the interval, retried until it succeeds. Only the first failure is printed.
async fn next(client: &Client, args: &SegmentsArgs) -> Vec<Value> {
    let mut noted = false;
    loop {
        tokio::time::sleep(INTERVAL).await;
        match all(client, args).await {
            Ok(segments) => return segments,
            Err(failure) if !noted => {
                note(&format!("{failure}; retrying"));
                noted = true;
            }
            Err(_) => {}
        }
    }
}

fn rows(client: &Client, segments: &[Value]) -> Result<Vec<Row>, Failure> {
    let rows: Result<Vec<Row>, _> = segments.iter().map(Row::deserialize).collect();
    rows.map_err(|error| client.unexpected(&error).into())
}

/// The counts that were printed last, by segment.
#[derive(Default)]
struct Changes {
    printed: HashMap<String, Option<u64>>,
}

impl Changes {
    /// A line for each segment whose count differs from the one printed last.
    fn lines(
        &mut self,
        client: &Client,
        mut segments: Vec<Value>,
        args: &SegmentsArgs,
    ) -> Result<String, Failure> {
        let mut rows = rows(client, &segments)?;
        // In a list with a limit, a missing segment may just have moved beyond the limit.
        if args.limit.is_none() {
            let is_listed = |name: &String| rows.iter().any(|row| row.segment == *name);
            let nonempty = self.printed.iter().filter(|(_, users)| **users != Some(0));
            let mut gone: Vec<_> = nonempty
                .map(|(name, _)| name.clone())
                .filter(|name| !is_listed(name))
                .collect();
            gone.sort_unstable();
            for segment in gone {
                segments.push(json!({"segment": segment, "users": 0, "as_of": null}));
                rows.push(Row {
                    segment,
                    users: Some(0),
                    as_of: None,
                    stale: false,
                });
            }
        }
        let mut text = String::new();
        for (row, document) in rows.into_iter().zip(segments) {
            if self.printed.get(&row.segment) == Some(&row.users) {
                continue;
            }
            match args.output.format() {
                OutputFormat::Json => text += &format!("{document}\n"),
                _ => text += &line(&row, 0, 0),
            }
            self.printed.insert(row.segment, row.users);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::OutputArgs;

    fn arguments(format: OutputFormat, limit: Option<u64>) -> SegmentsArgs {
        SegmentsArgs {
            limit,
            watch: true,
            output: OutputArgs::in_format(format),
            ..SegmentsArgs::everything()
        }
    }

    fn listed(users: &[(&str, u64)]) -> Vec<Value> {
        let document = |(segment, users): &(&str, u64)| json!({"segment": segment, "users": users, "as_of": "now"});
        users.iter().map(document).collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let client = Client::to("http://127.0.0.1:1", None).unwrap();
        let args = arguments(OutputFormat::Table, None);
        let mut changes = Changes::default();
        let mut lines =
            |users: &[(&str, u64)]| changes.lines(&client, listed(users), &args).unwrap();
        assert_eq!(lines(&[("a", 1), ("b", 2)]), "1  now  a\n2  now  b\n");
        assert_eq!(lines(&[("a", 1), ("b", 2)]), "");
        assert_eq!(lines(&[("a", 1), ("b", 1_003)]), "1,003  now  b\n");
        assert_eq!(lines(&[("b", 1_003)]), "0  -  a\n", "the last user left");
        assert_eq!(lines(&[("b", 1_003)]), "");
        assert_eq!(lines(&[("a", 5), ("b", 1_003)]), "5  now  a\n");
    }

    #[test]
    fn a_list_that_is_cut_off_empties_nobody() {
        let client = Client::to("http://127.0.0.1:1", None).unwrap();
        let args = arguments(OutputFormat::Json, Some(1));
        let mut changes = Changes::default();
        let mut lines =
            |users: &[(&str, u64)]| changes.lines(&client, listed(users), &args).unwrap();
        assert_eq!(lines(&[("a", 1)]).lines().count(), 1);
        let second = lines(&[("b", 2)]);
        let document: Value = serde_json::from_str(&second).unwrap();
        assert_eq!(
            (&document["segment"], &document["users"]),
            (&json!("b"), &json!(2))
        );
    }
}
