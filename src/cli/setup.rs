//! `headcount setup`.

use serde::Serialize;

use super::Failure;
use super::args::SetupArgs;
use super::output::{note, print, print_json, sanitized};
use super::retry::while_unreachable;
use super::token_files::TokenFiles;
use super::variables::Variables;
use crate::wiring;
use domain::store::{Change, SetUp, Step};

#[derive(Serialize)]
struct Document<'a> {
    steps: &'a [Step],
    tokens: Vec<Token<'a>>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Token<'a> {
    purpose: &'a str,
    token: &'a str,
}

pub(super) async fn run(args: SetupArgs, variables: Variables) -> Result<(), Failure> {
    let settings = args.settings.load(variables.into_vec())?.settings;
    let wants_tokens = args.tokens || args.tokens_dir.is_some();
    let set_up = async || wiring::set_up(&settings, wants_tokens).await;
    let mut done = while_unreachable(args.retry_for, set_up)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    if wants_tokens && wiring::token_roles(&settings).is_empty() {
        note("warning: this store has no tokens of its own: none were created");
    }
    if let Some(directory) = &args.tokens_dir {
        let files = TokenFiles::in_directory(directory);
        files.keep(&done.tokens)?;
        files.check(wiring::token_roles(&settings))?;
        done.tokens.clear();
    }
    for warning in &done.warnings {
        note(&format!("warning: {}", sanitized(warning)));
    }
    match args.json {
        true => print_json(&document(&done)),
        false => print(&text(
            &done,
            args.tokens && !wiring::token_roles(&settings).is_empty(),
        )),
    }
}

fn document(done: &SetUp) -> Document<'_> {
    let tokens = done.tokens.iter().map(|issued| Token {
        purpose: &issued.purpose,
        token: &issued.token,
    });
    Document {
        steps: &done.steps,
        tokens: tokens.collect(),
        warnings: &done.warnings,
    }
}

fn text(done: &SetUp, tokens_wanted: bool) -> String {
    if done.steps.is_empty() {
        return "this store needs no setup\n".to_owned();
    }
    let mut text = String::new();
    for step in &done.steps {
        let change = match step.change {
            Change::Created => "created",
            Change::Updated => "updated",
            Change::Unchanged => "unchanged",
        };
        text += &format!("{change:9}  {}\n", sanitized(&step.what));
    }
    for issued in &done.tokens {
        let purpose = sanitized(&issued.purpose);
        text += &format!("token for {purpose}: {}\n", sanitized(&issued.token));
    }
    if !done.tokens.is_empty() {
        text += "Save the tokens: they are not shown again.\n";
    } else if tokens_wanted {
        text += "The tokens exist already; to get new ones, delete them in the store.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::store::IssuedToken;

    #[test]
    fn a_set_up_is_told_line_by_line() {
        let done = SetUp {
            steps: vec![Step {
                what: "bucket \"b\"".into(),
                change: Change::Created,
            }],
            tokens: vec![IssuedToken {
                role: "reader",
                purpose: "headcount: reader".into(),
                token: "t0".into(),
            }],
            warnings: vec!["a stranger".into()],
        };
        assert_eq!(
            text(&done, true),
            "created    bucket \"b\"\ntoken for headcount: reader: t0\n\
             Save the tokens: they are not shown again.\n"
        );
        assert_eq!(
            serde_json::to_string(&document(&done)).unwrap(),
            r#"{"steps":[{"what":"bucket \"b\"","change":"created"}],"tokens":[{"purpose":"headcount: reader","token":"t0"}],"warnings":["a stranger"]}"#
        );
    }
}
