//! `headcount copy`: copies all pairs from one store to another, resumable.

mod report;
mod watcher;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;

use self::report::{document, text};
use self::watcher::Watcher;
use super::Failure;
use super::args::CopyArgs;
use super::output::{note, print, print_json};
use super::variables::Variables;
use crate::config::{Settings, StoreKind};
use crate::wiring;
use domain::store::PairStore;
use domain::{Clock, SteadyClock};
use telemetry::Metrics;
use tools::transfer::{
    Names, RetryPolicy, Transfer, TransferObserver, TransferParts, TransferReport,
};

pub(super) async fn run(mut args: CopyArgs, variables: Variables) -> Result<(), Failure> {
    let (from, to) = (args.from, args.to);
    check(from, to)?;
    let loaded =
        std::mem::take(&mut args.settings).load_with(variables.into_vec(), vec![from, to])?;
    let mut settings = loaded.settings;
    // What a store refuses is an error of this command, and a spool belongs to a service.
    settings.ingest.spool = None;
    let began = Instant::now();
    let watcher = Arc::new(Watcher::default());
    let names = Names {
        from: wiring::store_name(&settings, from),
        to: wiring::store_name(&settings, to),
    };
    let result = transfer(&args, &settings, &names, &watcher).await;
    watcher.finish();
    let report = result.map_err(|failure| advise(failure, &args.checkpoint))?;
    let done = document(&names, &report, watcher.retries(), began.elapsed());
    match args.json {
        true => print_json(&done)?,
        false => print(&text(&done))?,
    }
    if done.is_empty() {
        note(&format!(
            "warning: {} has no pairs within the window: is it the right place?",
            names.from
        ));
    }
    match done.lacking {
        0 => Ok(()),
        lacking => Err(Failure::failed(format!(
            "{} lacks users of {lacking} segments",
            name(to)
        ))),
    }
}

fn check(from: StoreKind, to: StoreKind) -> Result<(), Failure> {
    if from == StoreKind::Embedded {
        return Err(Failure::usage(
            "the embedded store keeps fingerprints of users, not their names: pairs can't be copied out of it; \
             send them to both stores for one window instead",
        ));
    }
    if from == to {
        return Err(Failure::usage(format!(
            "--from and --to are the same store, {}",
            name(from)
        )));
    }
    Ok(())
}

/// Opens both stores, copies until done or interrupted, and closes them.
async fn transfer(
    args: &CopyArgs,
    settings: &Settings,
    names: &Names,
    watcher: &Arc<Watcher>,
) -> Result<TransferReport, Failure> {
    let clock = Arc::new(SteadyClock::default());
    let source = open(settings, args.from, &clock).await?;
    let target = open(settings, args.to, &clock).await?;
    let notified = Arc::clone(watcher);
    let transfer = Transfer::new(TransferParts {
        frame: settings.frame,
        clock,
        source: Arc::clone(&source),
        target: Arc::clone(&target),
        names: names.clone(),
        checkpoint: args.checkpoint.clone(),
        parallelism: args.parallelism as usize,
        retry: RetryPolicy {
            retry_for: args.retry_for,
            on_retry: Arc::new(move |error, wait| notified.retrying(error, wait)),
        },
        observer: Arc::clone(watcher) as Arc<dyn TransferObserver>,
    });
    let result = tokio::select! {
        result = transfer.run() => result.map_err(|error| Failure::failed(error.to_string())),
        _ = tokio::signal::ctrl_c() => Err(Failure::failed("interrupted")),
    };
    for store in [source, target] {
        if let Err(error) = store.close().await {
            note(&format!("warning: closing a store: {error}"));
        }
    }
    result
}

async fn open(
    settings: &Settings,
    kind: StoreKind,
    clock: &SteadyClock,
) -> Result<Arc<dyn PairStore>, Failure> {
    let opened = wiring::open_store_of(settings, kind, &Arc::<Metrics>::default()).await;
    let opened = opened.map_err(|error| Failure::failed(format!("{}: {error}", name(kind))))?;
    if let Some(head) = opened.head {
        clock.not_before(settings.frame.resolution().start_of(head));
    }
    Ok(opened.store)
}

fn name(kind: StoreKind) -> String {
    let value = kind.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Adds how to resume to the message, if there is a checkpoint.
fn advise(failure: Failure, checkpoint: &Path) -> Failure {
    match failure {
        Failure::Failed(text) if checkpoint.exists() => Failure::Failed(format!(
            "{text}; the same command resumes from the checkpoint ({})",
            checkpoint.display()
        )),
        failure => failure,
    }
}
