//! `headcount export`: prints the users of a segment by name. After a broken connection it continues after the last user that it
//! printed, so no user is printed twice.

use std::time::Duration;

use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::Failure;
use super::args::{ExportArgs, ExportFormat};
use super::client::{Client, ClientError, valid};
use super::output::{grouped, note, print_on};
use super::variables::Variables;
use domain::Segment;

/// Attempts in a row that may bring no user.
const MAX_ATTEMPTS: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A line of the response.
#[derive(Debug, Deserialize, Serialize)]
struct User {
    user_id: String,
    last_seen: String,
    until: String,
}

/// What was printed so far.
struct Printed {
    format: ExportFormat,
    /// The last user that was printed, or that the caller named.
    after: Option<String>,
    users: u64,
    /// Whether the header of the CSV is printed, or not wanted.
    has_header: bool,
}

/// Why the lines of a response end.
enum Stop {
    Client(ClientError),
    Output(Failure),
    /// Standard output is a closed pipe: its reader has read enough.
    ClosedPipe,
}

pub(super) async fn run(args: ExportArgs, variables: &Variables) -> Result<(), Failure> {
    let client = Client::new(&args.target, variables)?;
    let segment = valid(&args.segment)?;
    let mut printed = Printed {
        format: args.format,
        has_header: args.resume.is_some(),
        after: args.resume,
        users: 0,
    };
    let (mut attempts, mut wait) = (0, FIRST_WAIT);
    loop {
        let before = printed.users;
        let stop = read(&client, &segment, args.window.as_deref(), &mut printed).await;
        let error = match stop {
            Ok(()) | Err(Stop::ClosedPipe) => return Ok(()),
            Err(Stop::Output(failure)) => return Err(failure),
            Err(Stop::Client(error)) => error,
        };
        if printed.users > before {
            (attempts, wait) = (0, FIRST_WAIT);
        }
        attempts += 1;
        if attempts > MAX_ATTEMPTS || !is_retryable(&error, printed.users > 0) {
            return Err(incomplete(&error, &printed));
        }
        let asked = match &error {
            ClientError::Refused { refusal, .. } => refusal.retry_after,
            _ => None,
        };
        let users = grouped(printed.users);
        note(&format!("continuing after {users} users: {error}"));
        sleep(asked.unwrap_or(wait).min(LONGEST_WAIT)).await;
        wait = LONGEST_WAIT.min(wait * 2);
    }
}

/// Prints the users of one response. `Ok` after the last user of the segment.
async fn read(
    client: &Client,
    segment: &Segment,
    window: Option<&str>,
    printed: &mut Printed,
) -> Result<(), Stop> {
    let after = printed.after.clone();
    let mut query = Vec::new();
    query.extend(window.map(|window| ("window", window)));
    query.extend(after.as_deref().map(|after| ("after", after)));
    let lines = client.lines_of(segment, "users", &query).await;
    let mut lines = lines.map_err(Stop::Client)?;
    while let Some(some) = lines.next().await.map_err(Stop::Client)? {
        let mut text = printed.header();
        for line in some.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let user: User = serde_json::from_slice(line)
                .map_err(|error| Stop::Client(client.unexpected(&error)))?;
            printed
                .add(user, &mut text)
                .map_err(|reason| Stop::Client(client.unexpected(&reason)))?;
        }
        if !text.is_empty() && !print_on(&text).map_err(Stop::Output)? {
            return Err(Stop::ClosedPipe);
        }
    }
    let header = printed.header();
    if header.is_empty() || print_on(&header).map_err(Stop::Output)? {
        return Ok(());
    }
    Err(Stop::ClosedPipe)
}

impl Printed {
    /// The header of the CSV, once.
    fn header(&mut self) -> String {
        match self.format == ExportFormat::Csv && !std::mem::replace(&mut self.has_header, true) {
            true => "user_id,last_seen,until\r\n".to_owned(),
            false => String::new(),
        }
    }

    /// Adds a user to `text`. Ids that do not ascend mean that a service or a proxy ignored `after`.
    fn add(&mut self, user: User, text: &mut String) -> Result<(), String> {
        if self
            .after
            .as_ref()
            .is_some_and(|after| user.user_id <= *after)
        {
            return Err("users that are out of order".to_owned());
        }
        match self.format {
            ExportFormat::Ndjson => {
                *text += &serde_json::to_string(&user).map_err(|error| error.to_string())?;
                text.push('\n');
            }
            ExportFormat::Csv => {
                let User {
                    user_id,
                    last_seen,
                    until,
                } = &user;
                *text += &format!("{},{last_seen},{until}\r\n", quoted(user_id));
            }
        }
        self.users += 1;
        self.after = Some(user.user_id);
        Ok(())
    }
}

/// A value of CSV. An id has no line break.
fn quoted(id: &str) -> String {
    match id.contains([',', '"']) || id.starts_with(' ') || id.ends_with(' ') {
        true => format!("\"{}\"", id.replace('"', "\"\"")),
        false => id.to_owned(),
    }
}

/// Whether another attempt may succeed. A service that was never reached is more likely a wrong URL.
fn is_retryable(error: &ClientError, has_begun: bool) -> bool {
    match error {
        ClientError::Unreachable { .. } => has_begun,
        ClientError::NoResponse { .. } => true,
        ClientError::Unexpected { .. } => false,
        ClientError::Refused { refusal, .. } => matches!(
            refusal.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
    }
}

fn incomplete(error: &ClientError, printed: &Printed) -> Failure {
    match (&printed.after, printed.users) {
        (Some(after), users @ 1..) => Failure::failed(format!(
            "{error}\nThe output is incomplete: it has {} users. Continue with --resume {after:?}",
            grouped(users)
        )),
        _ => Failure::failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> User {
        User {
            user_id: id.to_owned(),
            last_seen: "2026-11-21T08:00:00Z".to_owned(),
            until: "2026-12-05T08:00:00Z".to_owned(),
        }
    }

    #[test]
    fn values_of_csv_are_quoted_where_they_need_it() {
        let mut printed = Printed {
            format: ExportFormat::Csv,
            after: None,
            users: 0,
            has_header: false,
        };
        let mut text = printed.header();
        for id in ["a", "b,c", "d\"e", "ü 🏀"] {
            printed.add(user(id), &mut text).unwrap();
        }
        let times = "2026-11-21T08:00:00Z,2026-12-05T08:00:00Z\r\n";
        assert_eq!(
            text,
            format!(
                "user_id,last_seen,until\r\na,{times}\"b,c\",{times}\"d\"\"e\",{times}ü 🏀,{times}"
            )
        );
        assert_eq!((printed.header().as_str(), printed.users), ("", 4));
    }

    #[test]
    fn a_user_is_never_printed_twice() {
        let mut printed = Printed {
            format: ExportFormat::Ndjson,
            after: Some("m".to_owned()),
            users: 0,
            has_header: true,
        };
        let mut text = String::new();
        printed.add(user("n"), &mut text).unwrap();
        for again in ["n", "m", "a"] {
            printed.add(user(again), &mut text).unwrap_err();
        }
        assert_eq!(text.lines().count(), 1);
    }
}
