//! `headcount count SEGMENT...` and `headcount count --expr EXPRESSION`.

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::args::{CountArgs, OutputFormat};
use super::client::{Client, ClientError, valid};
use super::coverage::Covered;
use super::output::{grouped, note, print, print_csv, print_json, sanitized};
use super::variables::Variables;
use domain::text::duration_text;
use domain::{Expression, Segment};

/// Segments that are requested concurrently.
const CONCURRENT: usize = 8;
/// The path of counts of sets.
const SETS: [&str; 2] = ["v1", "count"];

/// The fields of a count response that are displayed.
#[derive(Deserialize)]
struct CountResponse {
    /// Missing if the service withholds it.
    users: Option<u64>,
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
    // Parsed before the request, so that a mistake is reported without a service.
    let asked = Asked::all(&args)?;
    let client = Client::new(&args.target, variables)?;
    let mut query = Vec::new();
    if let Some(window) = &args.window {
        query.push(("window", window.as_str()));
    }
    if args.fresh {
        query.push(("fresh", "true"));
    }
    if args.output.format() == OutputFormat::Csv {
        return csv(&client, &asked, &query).await;
    }
    let mut documents = stream::iter(&asked)
        .map(|asked| asked.document(&client, &query))
        .buffered(CONCURRENT);
    let mut all = asked.iter();
    // The same for all segments.
    let mut incomplete = None;
    while let (Some(document), Some(asked)) = (documents.try_next().await?, all.next()) {
        incomplete = show(&client, asked, &document, &args).await?;
    }
    if let Some(remark) = incomplete.filter(|_| !args.output.quiet) {
        note(&remark);
    }
    Ok(())
}

/// Prints a count. Returns a remark if it is not complete.
async fn show(
    client: &Client,
    asked: &Asked,
    document: &Value,
    args: &CountArgs,
) -> Result<Option<String>, Failure> {
    let response =
        CountResponse::deserialize(document).map_err(|error| client.unexpected(&error))?;
    match args.output.format() {
        OutputFormat::Json => print_json(document)?,
        _ => print(&sentence(&asked.to_string(), &response))?,
    }
    match asked {
        _ if args.output.quiet => {}
        Asked::Segment(segment) if response.users == Some(0) && response.known != Some(true) => {
            note_never_seen(client, segment.as_str(), response.known).await;
        }
        Asked::Segment(_) => {}
        Asked::Set(_) => {
            for name in &response.unknown {
                note_never_seen(client, name, Some(false)).await;
            }
        }
    }
    Ok(response.covered.remark())
}

/// Prints one table with all counts.
async fn csv(client: &Client, asked: &[Asked], query: &[(&str, &str)]) -> Result<(), Failure> {
    let tables: Vec<String> = stream::iter(asked)
        .map(|asked| asked.csv(client, query))
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    let mut text = String::new();
    for table in &tables {
        let (header, rows) = table.split_once('\n').unwrap_or((table, ""));
        if text.is_empty() {
            text = format!("{header}\n");
        }
        text += rows;
    }
    print_csv(&text)
}

/// What is counted.
enum Asked {
    Segment(Segment),
    Set(Expression),
}

impl Asked {
    fn all(args: &CountArgs) -> Result<Vec<Self>, Failure> {
        match &args.expr {
            Some(text) => match Expression::parse(text) {
                Ok(expression) => Ok(vec![Self::Set(expression)]),
                Err(error) => Err(Failure::usage(error.to_string())),
            },
            None => {
                let names = args.segments.iter();
                names.map(|name| valid(name).map(Self::Segment)).collect()
            }
        }
    }

    async fn document(
        &self,
        client: &Client,
        query: &[(&str, &str)],
    ) -> Result<Value, ClientError> {
        match self {
            Self::Segment(segment) => client.get_of(segment, "count", query).await,
            Self::Set(expression) => {
                let expression = expression.to_string();
                client.get(&SETS, &with(query, &expression)).await
            }
        }
    }

    async fn csv(&self, client: &Client, query: &[(&str, &str)]) -> Result<String, ClientError> {
        match self {
            Self::Segment(segment) => client.get_csv_of(segment, "count", query).await,
            Self::Set(expression) => {
                let expression = expression.to_string();
                client.get_csv(&SETS, &with(query, &expression)).await
            }
        }
    }
}

fn with<'a>(query: &[(&'a str, &'a str)], expression: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut query = query.to_vec();
    query.push(("expr", expression));
    query
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
        None => "withheld, to protect small groups of users,".to_owned(),
        Some(1) => "1 user".to_owned(),
        Some(users) => format!("{} users", grouped(users)),
    };
    let window = duration_text(response.window_seconds);
    let stale = if response.stale {
        ", STALE: no newer count is available"
    } else {
        ""
    };
    let never = if response.users == Some(0) && response.known == Some(false) {
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
            users: Some(users),
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
