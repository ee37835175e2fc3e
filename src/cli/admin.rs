//! `headcount refresh` and `headcount archive`: work that a scheduler starts.

use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::args::{ArchiveArgs, RefreshArgs, Target};
use super::client::{Client, valid};
use super::output::{grouped, harmless, print, print_json};
use super::setting_flags::SettingFlags;
use super::variables::Variables;
use crate::config::StoreKind;

#[derive(Deserialize)]
struct Refreshed {
    refreshed: Option<u64>,
    failed: Option<u64>,
    took_seconds: Option<f64>,
    skipped: Option<Value>,
}

#[derive(Deserialize)]
struct Removed {
    removed: u64,
}

pub(super) async fn refresh(args: RefreshArgs, variables: Variables) -> Result<(), Failure> {
    let client = service(&args.target, args.settings, variables)?;
    let segment = args.segment.as_deref().map(valid).transpose()?;
    let query: Vec<_> = segment
        .iter()
        .map(|name| ("segment", name.as_str()))
        .collect();
    let document = client
        .post_work(&["v1", "admin", "refresh"], &query)
        .await?;
    let done = Refreshed::deserialize(&document).map_err(|error| client.nonsense(&error))?;
    match args.json {
        true => print_json(&document)?,
        false => print(&refreshed_text(&done))?,
    }
    match done.failed {
        Some(failed) if failed > 0 => Err(Failure::failed(format!(
            "{failed} segments could not be recounted; the service's log says why"
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
        return format!("skipped: {}\n", harmless(why));
    }
    let took = done.took_seconds.unwrap_or_default();
    let refreshed = grouped(done.refreshed.unwrap_or_default());
    format!("{refreshed} counts refreshed in {took:.1} s\n")
}

pub(super) async fn archive(args: ArchiveArgs, variables: Variables) -> Result<(), Failure> {
    let client = service(&args.target, args.settings, variables)?;
    let document = client.post_work(&["v1", "admin", "archive"], &[]).await?;
    let done = Removed::deserialize(&document).map_err(|error| client.nonsense(&error))?;
    match args.json {
        true => print_json(&document),
        false => print(&format!("{} pairs removed\n", grouped(done.removed))),
    }
}

/// The service that is to do the work. Without one, the configured store has to be one that two processes
/// may share.
fn service(
    target: &Target,
    settings: SettingFlags,
    variables: Variables,
) -> Result<Client, Failure> {
    if target.url.is_some() || variables.get("HEADCOUNT_URL")?.is_some() {
        return Client::new(target, &variables);
    }
    let loaded = settings.load(variables.into_vec())?;
    match loaded.settings.store.kind {
        StoreKind::Embedded => Err(Failure::usage(format!(
            "the embedded store in {} belongs to the service that runs on it: give its --url",
            loaded.settings.store.data_dir.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_is_told_in_a_line() {
        let text = |document: &str| refreshed_text(&serde_json::from_str(document).unwrap());
        assert_eq!(
            text(r#"{"refreshed": 1200, "failed": 0, "took_seconds": 1.25}"#),
            "1,200 counts refreshed in 1.2 s\n"
        );
        assert_eq!(
            text(r#"{"refreshed": 0, "failed": 0, "took_seconds": 0, "skipped": true}"#),
            "skipped: another refresh is under way\n"
        );
    }
}
