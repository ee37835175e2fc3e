//! `headcount count SEGMENT`.

use serde::Deserialize;

use super::Failure;
use super::args::CountArgs;
use super::client::{Client, valid};
use super::output::{grouped, harmless, print, print_json};
use super::variables::Variables;

/// What people need of a count.
#[derive(Deserialize)]
struct Answer {
    users: u64,
    window_seconds: u64,
    as_of: String,
    age_seconds: f64,
    source: String,
    pending: Option<u64>,
    #[serde(default)]
    stale: bool,
}

pub(super) async fn run(args: CountArgs, variables: &Variables) -> Result<(), Failure> {
    let segment = valid(&args.segment)?;
    let client = Client::new(&args.target, variables)?;
    let mut query = Vec::new();
    if let Some(window) = &args.window {
        query.push(("window", window.as_str()));
    }
    if args.fresh {
        query.push(("fresh", "true"));
    }
    let document = client.get_of(&segment, "count", &query).await?;
    let answer = Answer::deserialize(&document).map_err(|error| client.nonsense(&error))?;
    match args.json {
        true => print_json(&document),
        false => print(&sentence(segment.as_str(), &answer)),
    }
}

fn sentence(segment: &str, answer: &Answer) -> String {
    let users = match answer.users {
        1 => "1 user".to_owned(),
        users => format!("{} users", grouped(users)),
    };
    let window = super::duration_text(answer.window_seconds);
    let pending = match answer.pending {
        Some(0) => String::new(),
        Some(pending) => format!(", at most {} more pending", grouped(pending)),
        None => ", how many are pending is unknown".into(),
    };
    let stale = if answer.stale {
        ", STALE: no source answers"
    } else {
        ""
    };
    format!(
        "{segment}: {users} in the last {window} as of {} ({:.1} s ago, from {}{pending}{stale})\n",
        harmless(&answer.as_of),
        answer.age_seconds,
        harmless(&answer.source),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(users: u64, pending: Option<u64>, stale: bool) -> Answer {
        Answer {
            users,
            window_seconds: 1_209_600,
            as_of: "2026-11-21T08:00:00Z".into(),
            age_seconds: 0.84,
            source: "memory".into(),
            pending,
            stale,
        }
    }

    #[test]
    fn people_read_users_age_and_source() {
        assert_eq!(
            sentence("sports", &answer(12_345, Some(0), false)),
            "sports: 12,345 users in the last 14d as of 2026-11-21T08:00:00Z (0.8 s ago, from memory)\n"
        );
        assert!(sentence("s", &answer(1, Some(2), true)).contains(
            "1 user in the last 14d as of 2026-11-21T08:00:00Z (0.8 s ago, from memory, at most 2 more pending, STALE"
        ));
        assert!(sentence("s", &answer(1, None, false)).contains("unknown"));
    }
}
