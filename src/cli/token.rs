//! `headcount token`: creates, lists and revokes tokens.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde::Serialize;

use super::Failure;
use super::args::{TokenCommand, TokenFile, TokenListArgs, TokenNewArgs, TokenRevokeArgs};
use super::output::{note, print, print_json, sanitized};
use super::setting_flags::SettingFlags;
use super::variables::Variables;
use domain::Timestamp;
use http::auth::{self, BadTokens, Digest, EditError, Token};

#[derive(Serialize)]
struct Created<'a> {
    token: &'a str,
}

#[derive(Serialize)]
struct Listed {
    tokens: Vec<Row>,
}

/// A token without its secret.
#[derive(Serialize)]
struct Row {
    name: String,
    scopes: Vec<auth::Scope>,
    /// Null: all segments.
    segments: Option<Vec<String>>,
    created: String,
    expires: Option<String>,
    expired: bool,
    requests_per_second: Option<u32>,
    pairs_per_second: Option<u32>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: String,
}

pub(super) fn run(command: TokenCommand, variables: Variables) -> Result<(), Failure> {
    match command {
        TokenCommand::New(args) => new(args, variables),
        TokenCommand::List(args) => list(args, variables),
        TokenCommand::Revoke(args) => revoke(args, variables),
    }
}

fn new(args: TokenNewArgs, variables: Variables) -> Result<(), Failure> {
    let path = path(args.file, variables)?;
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let text = auth::new_token().map_err(|error| failed(&error))?;
    let now = Timestamp::now();
    let expires = match args.expires_in {
        Some(after) => {
            let after = SignedDuration::try_from(after).map_err(|error| failed(&error))?;
            Some(now.checked_add(after).map_err(|error| failed(&error))?)
        }
        None => None,
    };
    let mut scopes = Vec::new();
    for scope in args.scope {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    let token = Token {
        name: args.name,
        scopes,
        segments: Some(args.segments).filter(|patterns| !patterns.is_empty()),
        sha256: Digest::of(text.as_bytes()),
        created: to_the_second(now),
        expires: expires.map(to_the_second),
        requests_per_second: args.limit_requests,
        pairs_per_second: args.limit_pairs,
    };
    // Created before the token is added, so that a token that can't be written never becomes valid.
    let out = args.out.as_deref().map(NewFile::create).transpose();
    let out = out.map_err(|error| failed(&error))?;
    auth::edit(&path, |tokens| tokens.add(token)).map_err(failure)?;
    // Added before it is printed: a printed token that is not valid is worse than a valid one that was not printed.
    match (out, args.json) {
        (Some(out), _) => out.keep(&text).map_err(|error| failed(&error)),
        (None, true) => print_json(&Created { token: &text }),
        (None, false) => {
            print(&format!("{text}\n"))?;
            note("Keep it: it is not shown again.");
            Ok(())
        }
    }
}

/// A file for a token, with mode 0600. It is removed on drop unless the token was written.
struct NewFile<'a> {
    path: &'a Path,
    file: File,
    is_kept: bool,
}

impl<'a> NewFile<'a> {
    /// Creates the file. An existing file is an error, since it may contain another token.
    fn create(path: &'a Path) -> Result<Self, String> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options
            .open(path)
            .map_err(|error| format!("can't create {}: {error}", path.display()))?;
        Ok(Self {
            path,
            file,
            is_kept: false,
        })
    }

    fn keep(mut self, token: &str) -> Result<(), String> {
        let written = writeln!(self.file, "{token}").and_then(|()| self.file.sync_all());
        written.map_err(|error| {
            let path = self.path.display();
            format!("can't write {path}: {error}; revoke the token and create another one")
        })?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(self.path);
        }
    }
}

fn list(args: TokenListArgs, variables: Variables) -> Result<(), Failure> {
    let path = path(args.file, variables)?;
    let tokens = auth::read(&path).map_err(failure)?;
    let now = Timestamp::now();
    let rows: Vec<Row> = tokens.iter().map(|token| row(token, now)).collect();
    match args.json {
        true => print_json(&Listed { tokens: rows }),
        false => print(&table(&rows)),
    }
}

fn revoke(args: TokenRevokeArgs, variables: Variables) -> Result<(), Failure> {
    let path = path(args.file, variables)?;
    let name = args.name;
    auth::edit(&path, |tokens| match tokens.remove(&name) {
        true => Ok(()),
        false => Err(BadTokens::no_such(&name)),
    })
    .map_err(failure)?;
    match args.json {
        true => print_json(&Revoked { revoked: name }),
        false => print(&format!(
            "{name} is revoked; a running service refuses it within two seconds\n"
        )),
    }
}

/// The tokens file from the flag or the settings.
fn path(file: TokenFile, variables: Variables) -> Result<PathBuf, Failure> {
    if let Some(path) = file.tokens_file {
        return Ok(path);
    }
    let settings = SettingFlags::of_file(file.config)
        .load(variables.into_vec())?
        .settings;
    settings.auth.tokens_file.ok_or_else(|| {
        Failure::usage("there is no tokens file: give --tokens-file, or set `tokens_file`")
    })
}

fn failure(error: EditError) -> Failure {
    Failure::failed(error.to_string())
}

fn row(token: &Token, now: Timestamp) -> Row {
    Row {
        name: token.name.clone(),
        scopes: token.scopes.clone(),
        segments: token.segments.clone(),
        created: token.created.to_string(),
        expires: token.expires.map(|at| at.to_string()),
        expired: token.is_expired(now),
        requests_per_second: token.requests_per_second.map(u32::from),
        pairs_per_second: token.pairs_per_second.map(u32::from),
    }
}

fn table(rows: &[Row]) -> String {
    let width = |text: fn(&Row) -> String, title: &str| {
        let longest = rows.iter().map(|row| text(row).len()).max();
        longest.unwrap_or(0).max(title.len())
    };
    let (name, scope, rates) = (
        width(|row| row.name.clone(), "NAME"),
        width(scopes, "SCOPES"),
        width(limits, "LIMITS"),
    );
    let mut text = format!(
        "{:name$}  {:scope$}  {:20}  {:20}  {:rates$}  SEGMENTS\n",
        "NAME", "SCOPES", "CREATED", "EXPIRES", "LIMITS"
    );
    for row in rows {
        let expires = match (&row.expires, row.expired) {
            (_, true) => "expired",
            (Some(at), false) => at,
            (None, false) => "-",
        };
        text += &format!(
            "{:name$}  {:scope$}  {:20}  {expires:20}  {:rates$}  {}\n",
            row.name,
            scopes(row),
            row.created,
            limits(row),
            segments(row),
        );
    }
    text
}

fn scopes(row: &Row) -> String {
    let names: Vec<_> = row.scopes.iter().map(|scope| scope.as_str()).collect();
    names.join(",")
}

fn limits(row: &Row) -> String {
    let limit = |rate: Option<u32>, what| rate.map(|rate| format!("{rate} {what}/s"));
    let requests = limit(row.requests_per_second, "requests");
    let pairs = limit(row.pairs_per_second, "pairs");
    match (requests, pairs) {
        (Some(requests), Some(pairs)) => format!("{requests}, {pairs}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "-".into(),
    }
}

fn segments(row: &Row) -> String {
    match &row.segments {
        Some(patterns) => sanitized(&patterns.join(", ")),
        None => "all".into(),
    }
}

/// Seconds are precise enough for the times of a token.
fn to_the_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::auth::Scope;

    #[test]
    fn tokens_are_listed_without_what_is_secret() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let token = |name: &str, expires, pairs| Token {
            name: name.into(),
            scopes: vec![Scope::Read, Scope::Write],
            segments: (pairs > 0).then(|| vec!["sports*".into(), "news".into()]),
            sha256: Digest::of(name.as_bytes()),
            created: at(1_795_262_400),
            expires,
            requests_per_second: None,
            pairs_per_second: std::num::NonZeroU32::new(pairs),
        };
        let now = at(1_800_000_000);
        let rows = [
            row(&token("uss", None, 5000), now),
            row(&token("dashboard", Some(now), 0), now),
        ];
        assert_eq!(
            table(&rows),
            "NAME       SCOPES      CREATED               EXPIRES               LIMITS        SEGMENTS\n\
             uss        read,write  2026-11-21T12:00:00Z  -                     5000 pairs/s  sports*, news\n\
             dashboard  read,write  2026-11-21T12:00:00Z  expired               -             all\n"
        );
    }
}
