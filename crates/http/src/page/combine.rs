//! `GET /combine`: the number of users of an expression over segments. The page's script fetches it while it is typed.

use askama::Template;
use warp::http::StatusCode;
use warp::reply::Response;

use super::health::{Health, Numbers};
use super::period::{Choice, Period};
use super::words::{percent, plural};
use super::{Pages, Place, Shell, html};
use crate::api::overlap;
use crate::path::{encode, with};
use crate::problem::Problem;
use crate::query::Query;
use domain::expression::Set;
use domain::text::grouped;
use domain::{Expression, Reach};
use engine::Headcount;

/// The characters that are shown on each side of a mistake.
const AROUND: usize = 30;
/// Why a number is not shown.
const WITHHELD: &str =
    "This number is withheld: it would reveal a smaller group of users than this service shows.";

#[derive(Template)]
#[template(path = "combine.html")]
struct Page {
    shell: Shell,
    health: Health,
    expression: String,
    answer: Answer,
    windows: Vec<Choice>,
    trouble: Option<String>,
    window: String,
    curl: Option<String>,
    fields: Vec<(&'static str, String)>,
}

/// What is known about an expression.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// There is none.
    Empty,
    Counted {
        users: String,
        noun: &'static str,
        /// `3.2% of the 400,000 users in any segment`, if that is known.
        share: Option<String>,
        /// The names of segments without any user.
        unknown: Vec<String>,
    },
    /// It is invalid: a sentence, and the place of the mistake in two lines.
    Invalid { words: String, mark: String },
    /// It can't be counted: a sentence.
    Failed(String),
}

pub(super) async fn get(pages: &Pages, query: &Query, reach: &Reach) -> Result<Response, Problem> {
    let period = pages.period_of_sets(query)?;
    let expression = query.text("expr")?.unwrap_or("").to_owned();
    let answer = answer(pages, &expression, &period, reach).await;
    let readiness = pages.readiness();
    let numbers = match (&answer, readiness.reads) {
        (Answer::Counted { .. }, _) | (_, true) => Numbers::Good,
        (_, false) => Numbers::Failed,
    };
    let address = match expression.is_empty() {
        true => "/combine".to_owned(),
        false => with("/combine", &format!("expr={}", encode(&expression))),
    };
    let page = Page {
        shell: pages.shell_with(Place::Combine, &period, &readiness, readiness.reads),
        health: Health::of(&readiness, numbers),
        windows: period.windows(&address),
        trouble: period.trouble.clone(),
        window: period.window_words(),
        curl: (answer != Answer::Empty).then(|| {
            let counted = format!("/v1/count?expr={}", encode(expression.trim()));
            with(&counted, &format!("window={}", period.window.seconds()))
        }),
        fields: period.fields(),
        answer,
        expression,
    };
    html(StatusCode::OK, &page)
}

async fn answer(pages: &Pages, text: &str, period: &Period, reach: &Reach) -> Answer {
    if text.trim().is_empty() {
        return Answer::Empty;
    }
    let expression = match Expression::parse(text) {
        Ok(expression) => expression,
        Err(invalid) => {
            return Answer::Invalid {
                words: sentence(&invalid.to_string()),
                mark: mark(text, invalid.position),
            };
        }
    };
    let is_within = reach.is_every()
        || (!expression.needs_every_segment()
            && expression
                .segments()
                .iter()
                .all(|segment| reach.covers(segment.as_str())));
    if !is_within {
        return Answer::Failed(sentence(crate::authorization::forbidden_segment().detail()));
    }
    let (app, floor, window) = (&pages.app, pages.floor, period.window);
    let counted = app
        .counts()
        .get_set(&expression, window, floor, false)
        .await;
    let users = match counted {
        Ok(counted) => counted.value,
        Err(error) => return Answer::Failed(sentence(overlap::problem(error).detail())),
    };
    let Some(users) = users else {
        return Answer::Failed(WITHHELD.to_owned());
    };
    let all = match expression.set() {
        Set::Everybody => Some(users),
        _ => pages.everybody.users(app, window, reach, floor).await,
    };
    Answer::Counted {
        users: grouped(users),
        noun: if users == 1 { "user" } else { "users" },
        share: all.and_then(|all| share(users, all)),
        unknown: unknown(app, &expression).await,
    }
}

async fn unknown(app: &Headcount, expression: &Expression) -> Vec<String> {
    let mut unknown = Vec::new();
    for segment in expression.segments() {
        if !app.has_seen(segment).await {
            unknown.push(domain::shown(segment.as_str()));
        }
    }
    unknown
}

/// Users may have come between the two counts, so a share of more than all is left out.
fn share(users: u64, all: u64) -> Option<String> {
    let share = percent(users, all).filter(|_| users <= all)?;
    Some(format!(
        "{share} of the {} in any segment",
        plural(all, "user")
    ))
}

/// The message of an error as a sentence.
fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => String::new(),
    }
}

/// The part of `text` around a mistake, and a line that points at it. `position` is in characters, from 1.
fn mark(text: &str, position: usize) -> String {
    let letters: Vec<char> = text
        .chars()
        .map(|letter| if letter.is_whitespace() { ' ' } else { letter })
        .collect();
    let at = position.saturating_sub(1).min(letters.len());
    let begin = at.saturating_sub(AROUND);
    let end = (at + AROUND).min(letters.len());
    let cut = if begin > 0 { "…" } else { "" };
    let line: String = letters.get(begin..end).unwrap_or_default().iter().collect();
    let before = " ".repeat(at - begin + cut.chars().count());
    format!("{cut}{line}\n{before}^")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_pointed_at() {
        assert_eq!(mark("news AN sports", 6), "news AN sports\n     ^");
        assert_eq!(mark("über (", 6), "über (\n     ^");
        assert_eq!(mark("", 1), "\n^");
        let long = format!("{}x", "a ".repeat(40));
        let marked = mark(&long, 81);
        let (line, pointer) = marked.split_once('\n').unwrap();
        assert!(line.starts_with('…') && line.ends_with('x'));
        assert_eq!(pointer.chars().count(), line.chars().count());
    }

    #[test]
    fn shares_and_sentences() {
        assert_eq!(
            share(1, 4).as_deref(),
            Some("25.0% of the 4 users in any segment")
        );
        assert_eq!(share(5, 4), None);
        assert_eq!(sentence("the store is busy"), "The store is busy.");
    }
}
