//! `headcount count SEGMENT` and `headcount count --expr EXPRESSION`.

use serde::Deserialize;

use super::Failure;
use super::args::CountArgs;
use super::client::{Client, valid};
use super::coverage::Covered;
use super::output::{grouped, note, print, print_json, sanitized};
use super::variables::Variables;
use domain::text::duration_text;
use domain::{Expression, Segment};

/// The fields of a count response that are displayed.
#[derive(Deserialize)]
struct CountResponse {
    users: u64,
    window_seconds: u64,
    as_of: String,
    age_seconds: f64,
    source: String,
    #[serde(default)]
    stale: bool,
    /// Whether the service has ever seen the segment; missing in responses of version 0.1.0.
    known: Option<bool>,
    #[serde(flatten)]
    covered: Covered,
    /// Names in the expression that the service has never seen.
    #[serde(default)]
    unknown: Vec<String>,
}

#[derive(Deserialize)]
struct Page {
    segments: Vec<Named>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    segment: String,
}

pub(super) async fn run(args: CountArgs, variables: &Variables) -> Result<(), Failure> {
    // Before the service is asked, so that a mistake is told without one.
    let asked = Asked::new(&args)?;
    let client = Client::new(&args.target, variables)?;
    let mut query = Vec::new();
    if let Some(window) = &args.window {
        query.push(("window", window.as_str()));
    }
    if args.fresh {
        query.push(("fresh", "true"));
    }
    let document = match &asked {
        Asked::Segment(segment) => client.get_of(segment, "count", &query).await?,
        Asked::Set(expression) => {
            let expression = expression.to_string();
            query.push(("expr", &expression));
            client.get(&["v1", "count"], &query).await?
        }
    };
    let response =
        CountResponse::deserialize(&document).map_err(|error| client.unexpected(&error))?;
    match args.json {
        true => print_json(&document)?,
        false => print(&sentence(&asked.to_string(), &response))?,
    }
    if let Some(remark) = response.covered.remark() {
        note(&remark);
    }
    match &asked {
        Asked::Segment(segment) if response.users == 0 && response.known != Some(true) => {
            note_never_seen(&client, segment.as_str(), response.known).await;
        }
        Asked::Segment(_) => {}
        Asked::Set(_) => {
            for name in &response.unknown {
                note_never_seen(&client, name, Some(false)).await;
            }
        }
    }
    Ok(())
}

/// What is counted.
enum Asked {
    Segment(Segment),
    Set(Expression),
}

impl Asked {
    fn new(args: &CountArgs) -> Result<Self, Failure> {
        match (&args.segment, &args.expr) {
            (Some(segment), _) => Ok(Self::Segment(valid(segment)?)),
            (None, Some(text)) => Expression::parse(text)
                .map(Self::Set)
                .map_err(|error| Failure::usage(error.to_string())),
            (None, None) => Err(Failure::usage("give a segment, or a set with --expr")),
        }
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segment(segment) => f.write_str(segment.as_str()),
            Self::Set(expression) => expression.fmt(f),
        }
    }
}

/// Notes that `segment` was never seen, and suggests a similar name: a mistyped name has the valid count 0.
async fn note_never_seen(client: &Client, segment: &str, known: Option<bool>) {
    let names = some_names(client, segment).await.unwrap_or_default();
    if known.is_none() && (names.is_empty() || names.iter().any(|name| name == segment)) {
        return;
    }
    let meant = match nearest(segment, &names) {
        Some(name) => format!(": did you mean `{}`?", sanitized(name)),
        None => "; `headcount segments` lists the known segments".to_owned(),
    };
    note(&format!("`{}` was never seen{meant}", sanitized(segment)));
}

/// The first names of the list, and the first that begin with the same character as `segment`. This bounds the number of
/// requests and is enough for a suggestion.
async fn some_names(client: &Client, segment: &str) -> Option<Vec<String>> {
    let path = ["v1", "segments"];
    let page = async |query: &[(&str, &str)]| {
        let document = client.get(&path, query).await.ok()?;
        Page::deserialize(document).ok()
    };
    let all = page(&[("limit", "1000")]).await?;
    let mut pages = vec![all];
    if pages.iter().any(|page| page.next.is_some()) {
        let first: String = segment.chars().take(1).collect();
        pages.extend(page(&[("limit", "1000"), ("prefix", &first)]).await);
    }
    let names = pages.into_iter().flat_map(|page| page.segments);
    Some(names.map(|named| named.segment).collect())
}

/// The name most similar to `segment`, if any is similar enough.
fn nearest<'a>(segment: &str, names: &'a [String]) -> Option<&'a String> {
    const ALIKE: f64 = 0.7;
    let folded = segment.to_lowercase();
    let alike = |name: &str| strsim::normalized_damerau_levenshtein(&name.to_lowercase(), &folded);
    names
        .iter()
        .filter(|name| alike(name) >= ALIKE)
        .max_by(|a, b| alike(a).total_cmp(&alike(b)))
}

fn sentence(segment: &str, response: &CountResponse) -> String {
    let users = match response.users {
        1 => "1 user".to_owned(),
        users => format!("{} users", grouped(users)),
    };
    let window = duration_text(response.window_seconds);
    let stale = if response.stale {
        ", STALE: no newer count is available"
    } else {
        ""
    };
    let never = if response.users == 0 && response.known == Some(false) {
        ", never seen"
    } else {
        ""
    };
    format!(
        "{segment}: {users} in the last {window} as of {} ({:.1} s ago, from {}{stale}{never})\n",
        sanitized(&response.as_of),
        response.age_seconds,
        sanitized(&response.source),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(users: u64, stale: bool) -> CountResponse {
        CountResponse {
            users,
            window_seconds: 1_209_600,
            as_of: "2026-11-21T08:00:00Z".into(),
            age_seconds: 0.84,
            source: "memory".into(),
            stale,
            known: Some(users > 0),
            covered: Covered::deserialize(serde_json::json!({})).unwrap(),
            unknown: Vec::new(),
        }
    }

    #[test]
    fn the_nearest_name_is_suggested() {
        let names = ["sports", "news", "sport shoes", "Ünited"].map(str::to_owned);
        let near = |segment| nearest(segment, &names).map(String::as_str);
        assert_eq!(near("spotrs"), Some("sports"));
        assert_eq!(near("SPORTS"), Some("sports"));
        assert_eq!(near("sportshoes"), Some("sport shoes"));
        assert_eq!(near("united"), Some("Ünited"));
        assert_eq!(near("gardening"), None);
    }

    #[test]
    fn people_read_users_age_and_source() {
        assert_eq!(
            sentence("sports", &response(12_345, false)),
            "sports: 12,345 users in the last 14d as of 2026-11-21T08:00:00Z (0.8 s ago, from memory)\n"
        );
        assert!(sentence("s", &response(1, true)).contains(
            "1 user in the last 14d as of 2026-11-21T08:00:00Z (0.8 s ago, from memory, STALE"
        ));
        assert!(sentence("s", &response(0, false)).contains("from memory, never seen)"));
    }
}
