//! `headcount copy`: from one store to another, resumable.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use parking_lot::Mutex;
use serde::Serialize;

use super::Failure;
use super::args::CopyArgs;
use super::output::{grouped, harmless, note, print, print_json};
use super::progress::{Progress, Unit};
use super::variables::Variables;
use crate::config::{Settings, StoreKind};
use crate::domain::{Clock, SteadyClock};
use crate::store::{self, PairStore, StoreError};
use crate::telemetry::Metrics;
use crate::transfer::{
    Compared, Comparison, Names, Patience, Step, Transfer, TransferObserver, TransferParts,
    TransferReport,
};

/// While a store can't answer, people hear of it once in so long.
const QUIET: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Document<'a> {
    from: &'a str,
    to: &'a str,
    resumed: bool,
    pairs: u64,
    retries: u64,
    seconds: f64,
    segments: usize,
    lacking: usize,
    differences: Vec<Difference<'a>>,
}

#[derive(Serialize)]
struct Difference<'a> {
    segment: &'a str,
    source: u64,
    target: u64,
    comparison: Comparison,
}

pub(super) async fn run(args: CopyArgs, variables: Variables) -> Result<(), Failure> {
    let (from, to) = (args.from, args.to);
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
    let loaded = args
        .settings
        .load_with(variables.into_vec(), vec![from, to])?;
    let mut settings = loaded.settings;
    // What a store refuses is told here, and a spool belongs to a service.
    settings.ingest.spool = None;
    let began = Instant::now();
    let watcher = Arc::new(Watcher::default());
    let clock = Arc::new(SteadyClock::default());
    let source = open(&settings, from, &clock).await?;
    let target = open(&settings, to, &clock).await?;
    let names = Names {
        from: store::place(&settings, from),
        to: store::place(&settings, to),
    };
    let told = Arc::clone(&watcher);
    let transfer = Transfer::new(TransferParts {
        frame: settings.frame,
        clock,
        source: Arc::clone(&source),
        target: Arc::clone(&target),
        names: names.clone(),
        checkpoint: args.checkpoint.clone(),
        parallelism: args.parallelism as usize,
        patience: Patience {
            retry_for: args.retry_for,
            retrying: Arc::new(move |error, wait| told.retrying(error, wait)),
        },
        observer: Arc::clone(&watcher) as Arc<dyn TransferObserver>,
    });
    let result = tokio::select! {
        result = transfer.run() => result.map_err(|error| Failure::failed(error.to_string())),
        _ = tokio::signal::ctrl_c() => Err(Failure::failed("interrupted")),
    };
    watcher.progress.finish();
    for store in [source, target] {
        if let Err(error) = store.close().await {
            note(&format!("warning: closing a store: {error}"));
        }
    }
    let report = result.map_err(|failure| advise(failure, &args.checkpoint))?;
    let done = document(
        &names,
        &report,
        watcher.retries.load(Ordering::Relaxed),
        began.elapsed(),
    );
    match args.json {
        true => print_json(&done)?,
        false => print(&text(&done))?,
    }
    match done.lacking {
        0 => Ok(()),
        lacking => Err(Failure::failed(format!(
            "{} lacks users of {lacking} segments",
            name(to)
        ))),
    }
}

async fn open(
    settings: &Settings,
    kind: StoreKind,
    clock: &SteadyClock,
) -> Result<Arc<dyn PairStore>, Failure> {
    let opened = store::open_kind(settings, kind, clock.now(), &Arc::<Metrics>::default()).await;
    let opened = opened.map_err(|error| Failure::failed(format!("{}: {error}", name(kind))))?;
    if let Some(newest) = opened.newest {
        clock.not_before(settings.frame.resolution().start_of(newest));
    }
    Ok(opened.store)
}

fn name(kind: StoreKind) -> String {
    let value = kind.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Says how to go on, where there is something to go on with.
fn advise(failure: Failure, checkpoint: &Path) -> Failure {
    match failure {
        Failure::Failed(text) if checkpoint.exists() => Failure::Failed(format!(
            "{text}; the same command goes on where this one stopped ({})",
            checkpoint.display()
        )),
        failure => failure,
    }
}

fn document<'a>(
    names: &'a Names,
    report: &'a TransferReport,
    retries: u64,
    took: Duration,
) -> Document<'a> {
    let differs = |row: &&Compared| row.comparison != Comparison::Equal;
    let lacks = |row: &&Compared| row.comparison == Comparison::Less;
    let differences = report.compared.iter().filter(differs);
    Document {
        from: &names.from,
        to: &names.to,
        resumed: report.resumed,
        pairs: report.pairs,
        retries,
        seconds: took.as_secs_f64(),
        segments: report.compared.len(),
        lacking: report.compared.iter().filter(lacks).count(),
        differences: differences
            .map(|row| Difference {
                segment: row.segment.as_str(),
                source: row.source,
                target: row.target,
                comparison: row.comparison,
            })
            .collect(),
    }
}

fn text(done: &Document<'_>) -> String {
    let rate = grouped((done.pairs as f64 / done.seconds.max(1e-6)).round() as u64);
    let mut text = format!("from      {}\n", harmless(done.from));
    text += &format!("to        {}\n", harmless(done.to));
    let resumed = if done.resumed { ", resumed" } else { "" };
    text += &format!(
        "copied    {} pairs in {:.1} s, {rate} pairs/s{resumed}\n",
        grouped(done.pairs),
        done.seconds
    );
    let equal = done.segments - done.differences.len();
    text += &format!(
        "compared  {} segments, {} equal\n",
        grouped(done.segments as u64),
        grouped(equal as u64)
    );
    for row in &done.differences {
        let what = match row.comparison {
            Comparison::Equal => "equal",
            Comparison::More => "it had more, or the source lost some since",
            Comparison::Behind => "the source goes on: copy again once it rests",
            Comparison::Less => "users are MISSING",
        };
        text += &format!(
            "  {}: {} here, {} there: {what}\n",
            harmless(row.segment),
            grouped(row.source),
            grouped(row.target)
        );
    }
    text
}

/// Shows people how it goes.
#[derive(Debug)]
struct Watcher {
    progress: Progress,
    step: Mutex<Option<Step>>,
    pairs: AtomicU64,
    retries: AtomicU64,
    noted: Mutex<Option<Instant>>,
}

impl Default for Watcher {
    fn default() -> Self {
        Self {
            progress: Progress::new(Some(0), &Unit::Parts),
            step: Mutex::default(),
            pairs: AtomicU64::default(),
            retries: AtomicU64::default(),
            noted: Mutex::default(),
        }
    }
}

impl Watcher {
    fn message(&self) -> String {
        let pairs = grouped(self.pairs.load(Ordering::Relaxed));
        match *self.step.lock() {
            None => String::new(),
            Some(Step::Copying) => format!("copying, {pairs} pairs"),
            Some(Step::CatchingUp) => format!("catching up, {pairs} pairs"),
            Some(Step::Comparing) => "comparing counts".to_owned(),
        }
    }

    fn retrying(&self, error: &StoreError, wait: Duration) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        let mut noted = self.noted.lock();
        if noted.is_none_or(|at| at.elapsed() >= QUIET) {
            *noted = Some(Instant::now());
            let wait = wait.as_secs_f64();
            self.progress
                .note(&format!("{error}; trying again in {wait:.1} s"));
        }
    }
}

impl TransferObserver for Watcher {
    fn begins(&self, step: Step, parts: u64) {
        *self.step.lock() = Some(step);
        self.progress.begin(parts, &self.message());
    }

    fn moved(&self, parts: u64, pairs: u64) {
        self.pairs.fetch_add(pairs, Ordering::Relaxed);
        self.progress.advance(parts, || self.message());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Segment;

    #[test]
    fn people_and_scripts_read_what_became_of_it() {
        let names = Names {
            from: "influx at h".into(),
            to: "redis at h".into(),
        };
        let row = |name: &str, source, target, comparison| Compared {
            segment: Segment::new(name).unwrap(),
            source,
            target,
            comparison,
        };
        let report = TransferReport {
            resumed: true,
            pairs: 12_000,
            compared: vec![
                row("a", 7, 7, Comparison::Equal),
                row("b", 1_200, 1_199, Comparison::Less),
            ],
        };
        let done = document(&names, &report, 1, Duration::from_secs(2));
        assert_eq!(
            text(&done),
            "from      influx at h\nto        redis at h\n\
             copied    12,000 pairs in 2.0 s, 6,000 pairs/s, resumed\n\
             compared  2 segments, 1 equal\n  b: 1,200 here, 1,199 there: users are MISSING\n"
        );
        assert_eq!(
            serde_json::to_string(&done).unwrap(),
            r#"{"from":"influx at h","to":"redis at h","resumed":true,"pairs":12000,"retries":1,"seconds":2.0,"segments":2,"lacking":1,"differences":[{"segment":"b","source":1200,"target":1199,"comparison":"less"}]}"#
        );
    }
}
