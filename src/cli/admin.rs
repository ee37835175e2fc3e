//! `headcount refresh` and `headcount archive`: jobs for a scheduler.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use super::args::{ArchiveArgs, RefreshArgs, Target};
use super::client::{Client, valid};
use super::output::{grouped, note, print, print_json, sanitized};
use super::progress::{Progress, Unit};
use super::retry::while_unreachable;
use super::setting_flags::SettingFlags;
use super::variables::Variables;
use crate::config::{CacheKind, LiveMode, RefreshMode, StoreKind};
use engine::Headcount;
use engine::refresher::{Outcome, Skip};

#[derive(Deserialize)]
struct Refreshed {
    refreshed: Option<u64>,
    failed: Option<u64>,
    differences: Option<u64>,
    took_seconds: Option<f64>,
    skipped: Option<Value>,
}

#[derive(Deserialize)]
struct Removed {
    removed: u64,
}

pub(super) async fn refresh(args: RefreshArgs, variables: Variables) -> Result<(), Failure> {
    let segment = args.segment.as_deref().map(valid).transpose()?;
    let (document, done) = match runner(&args.target, args.settings, variables).await? {
        Runner::Service(client) => {
            let query: Vec<_> = segment
                .iter()
                .map(|name| ("segment", name.as_str()))
                .collect();
            let work = async || client.post_work(&["v1", "admin", "refresh"], &query).await;
            let document = while_unreachable(args.retry_for, work).await?;
            let done =
                Refreshed::deserialize(&document).map_err(|error| client.unexpected(&error))?;
            if done.skipped.is_none() && (done.refreshed.is_none() || done.failed.is_none()) {
                return Err(client.unexpected(&"the number of counts is missing").into());
            }
            (document, done)
        }
        Runner::Local(headcount, cache) => {
            if cache == CacheKind::Memory {
                note(
                    "warning: `cache = \"memory\"` is this process's own memory: services don't see these counts, only their trends; \
                     give the --url of a service, or set `cache = \"redis\"`",
                );
            }
            let work = async || headcount.refresh(segment.as_ref()).await;
            let outcome = while_unreachable(args.retry_for, work).await;
            close(&headcount).await;
            let outcome = outcome.map_err(failed)?;
            if let (Outcome::Unknown, Some(segment)) = (outcome, &segment) {
                return Err(failed(format!(
                    "no pair of the segment {:?} is known, so there is nothing to recount",
                    segment.as_str()
                )));
            }
            if outcome == Outcome::Skipped(Skip::NoCache) {
                return Err(failed("nothing was recounted: the cache is unavailable"));
            }
            let document = refreshed_document(outcome);
            let done = Refreshed::deserialize(&document).map_err(failed)?;
            (document, done)
        }
    };
    match args.json {
        true => print_json(&document)?,
        false => print(&refreshed_text(&done))?,
    }
    if done.skipped.is_none() && done.refreshed == Some(0) && done.failed == Some(0) {
        note("warning: the store has no segments: is it the one that pairs are recorded in?");
    }
    match done.failed {
        Some(failed) if failed > 0 => Err(Failure::failed(format!(
            "{failed} segments could not be recounted; see the log of the service"
        ))),
        _ => Ok(()),
    }
}

fn refreshed_text(done: &Refreshed) -> String {
    if let Some(why) = done
        .skipped
        .as_ref()
        .filter(|why| !matches!(why, Value::Null | Value::Bool(false)))
    {
        let why = why.as_str().unwrap_or("another refresh is under way");
        return format!("skipped: {}\n", sanitized(why));
    }
    let took = done.took_seconds.unwrap_or_default();
    let refreshed = grouped(done.refreshed.unwrap_or_default());
    match done.differences {
        None => format!("{refreshed} counts refreshed in {took:.1} s\n"),
        Some(0) => format!(
            "{refreshed} live counts compared with the store in {took:.1} s: no difference\n"
        ),
        Some(differences) => format!(
            "{refreshed} live counts compared with the store in {took:.1} s: {} differed and were read again\n",
            grouped(differences)
        ),
    }
}

pub(super) async fn archive(args: ArchiveArgs, variables: Variables) -> Result<(), Failure> {
    let (document, done) = match runner(&args.target, args.settings, variables).await? {
        Runner::Service(client) => {
            let work = async || client.post_work(&["v1", "admin", "archive"], &[]).await;
            let document = while_unreachable(args.retry_for, work).await?;
            let done =
                Removed::deserialize(&document).map_err(|error| client.unexpected(&error))?;
            (document, done)
        }
        Runner::Local(headcount, _) => {
            let progress = Progress::new(None, &Unit::Pairs);
            let observe =
                |removed| progress.at(removed, || format!("{} removed", grouped(removed)));
            let work = async || headcount.archive_with_progress(observe).await;
            let archived = while_unreachable(args.retry_for, work).await;
            progress.finish();
            close(&headcount).await;
            let removed = archived.map_err(failed)?;
            (json!({"removed": removed}), Removed { removed })
        }
    };
    match args.json {
        true => print_json(&document),
        false => print(&format!("{} pairs removed\n", grouped(done.removed))),
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// The same document as in the service's response.
fn refreshed_document(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Skipped(_) | Outcome::Unknown => {
            json!({"refreshed": 0, "failed": 0, "took_seconds": 0, "skipped": true})
        }
        Outcome::Done(report) => {
            let mut document = json!({
                "refreshed": report.refreshed,
                "failed": report.failed,
                "took_seconds": report.took.as_secs_f64(),
            });
            if let Some(differences) = report.differences {
                document["differences"] = differences.into();
            }
            document
        }
    }
}

/// Closes the store. The work is already done, so an error is only a warning.
async fn close(headcount: &Headcount) {
    if let Err(error) = headcount.shut_down().await {
        note(&format!("warning: closing the store: {error}"));
    }
}

/// The process that does the work.
enum Runner {
    Service(Client),
    /// This process, with a store that processes may share.
    Local(Box<Headcount>, CacheKind),
}

async fn runner(
    target: &Target,
    settings: SettingFlags,
    variables: Variables,
) -> Result<Runner, Failure> {
    if target.url.is_some() || variables.get("HEADCOUNT_URL")?.is_some() {
        return Ok(Runner::Service(Client::new(target, &variables)?));
    }
    let mut settings = settings.load(variables.into_vec())?.settings;
    if settings.store.kind == StoreKind::Embedded {
        return Err(Failure::usage(format!(
            "the embedded store in {} belongs to the service that runs on it: give its --url",
            settings.store.data_dir.display()
        )));
    }
    // This command runs one job, without the refresh loop. A spool belongs to a service.
    settings.refresh.mode = RefreshMode::Off;
    settings.ingest.spool = None;
    if settings.live.mode == LiveMode::Here {
        settings.live.mode = LiveMode::Off;
    }
    let headcount = Headcount::open(&settings).await.map_err(failed)?;
    Ok(Runner::Local(Box::new(headcount), settings.cache.kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::cli::test_server::TestServer;
    use clap::Parser;
    use warp::Filter;

    #[tokio::test]
    async fn another_program_has_refreshed_nothing() {
        let routes = warp::any().map(|| warp::reply::json(&json!({})));
        let server = TestServer::start(routes).await;
        let arguments = ["headcount", "refresh", "--url", &server.url];
        let Command::Refresh(args) = Cli::try_parse_from(arguments).unwrap().command else {
            panic!("not a refresh")
        };
        let Err(Failure::Failed(said)) = refresh(args, Variables::default()).await else {
            panic!("passed for a refresh")
        };
        assert!(said.contains("is it the URL"), "{said}");
    }

    #[test]
    fn a_refresh_is_told_in_a_line() {
        let text = |document: &str| refreshed_text(&serde_json::from_str(document).unwrap());
        assert_eq!(
            text(r#"{"refreshed": 1200, "failed": 0, "took_seconds": 1.25}"#),
            "1,200 counts refreshed in 1.2 s\n"
        );
        assert_eq!(
            text(r#"{"refreshed": 3, "failed": 0, "took_seconds": 1.1, "differences": 0}"#),
            "3 live counts compared with the store in 1.1 s: no difference\n"
        );
        assert_eq!(
            text(r#"{"refreshed": 3, "failed": 0, "took_seconds": 1.1, "differences": 1}"#),
            "3 live counts compared with the store in 1.1 s: 1 differed and were read again\n"
        );
        assert_eq!(
            text(r#"{"refreshed": 0, "failed": 0, "took_seconds": 0, "skipped": true}"#),
            "skipped: another refresh is under way\n"
        );
    }
}
