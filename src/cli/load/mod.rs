//! `headcount load`: reads or generates pairs, posts them in batches, and prints a report.
//!
//! One thread reads the input and builds batches, which wait in a bounded channel. As many batches as there are
//! connections are in flight at once. Memory is therefore bounded, whatever the size of the input.

mod batch;
mod columns;
mod content;
mod deliver;
mod dry_run;
mod generate;
mod json_values;
mod lines;
mod position;
mod reading;
mod rejects;
mod report;
mod source;
mod table;
mod table_end;
mod times;
mod utf16;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Failure;
use super::args::LoadArgs;
use super::client::{Client, ClientError};
use super::coverage;
use super::output::{grouped, note, print, print_json, sanitized};
use super::progress::{Progress, Unit};
use super::variables::Variables;
use crate::config::Settings;
use batch::{Batch, Batcher, Piece};
use columns::{Columns, TimeColumn};
use deliver::{PairsResponse, deliver};
use dry_run::DryRun;
pub(super) use generate::Generate;
use position::Position;
use rejects::RejectsFile;
use report::Report;
use source::{Inputs, Reader, paths};
use times::Times;
pub(super) use times::zone;

/// The interval between messages about retries while batches fail.
const QUIET: Duration = Duration::from_secs(5);

/// The code of pairs that are older than the window.
const EXPIRED: &str = "expired";
/// The maximum number of errors that a service lists for one request.
const LISTED: usize = 100;

pub(super) async fn run(args: LoadArgs, variables: &Variables) -> Result<(), Failure> {
    let (load, pieces) = prepare(&args, variables)?;
    let (report, failure) = load.run(pieces, args.connections as usize).await;
    match args.json {
        true => print_json(&report)?,
        false => print(&report.text())?,
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    outcome(&report, args.strict)?;
    match &args.covers_since {
        Some(since) => state_coverage(&args, variables, &report, since).await,
        None => Ok(()),
    }
}

/// States what the loaded pairs cover. Pairs that are too old for the window are in no count, so they are not missing.
async fn state_coverage(
    args: &LoadArgs,
    variables: &Variables,
    report: &Report,
    since: &str,
) -> Result<(), Failure> {
    let missing = report.rejected_but(EXPIRED);
    if missing > 0 {
        return Err(Failure::failed(format!(
            "nothing is stated about the time since {since}, because {} pairs were rejected; if they don't matter, run `headcount \
             coverage --since {since}`",
            grouped(missing)
        )));
    }
    let client = Client::new(&args.target, variables)?;
    coverage::state(&client, since).await?;
    note(&format!(
        "stated: every pair is counted that was seen since {since}"
    ));
    Ok(())
}

/// The result of a load that read all its input: an error if no pair was accepted, or if `strict` and a pair was rejected.
fn outcome(report: &Report, strict: bool) -> Result<(), Failure> {
    let (accepted, rejected) = (report.accepted, grouped(report.rejected));
    match report.rejected {
        0 if accepted == 0 => Err(Failure::failed(
            "nothing was accepted: there are no pairs in the input",
        )),
        _ if accepted == 0 => Err(Failure::failed(format!(
            "nothing was accepted: {rejected} of {rejected} pairs were rejected"
        ))),
        0 => Ok(()),
        _ if strict => Err(Failure::failed(format!("{rejected} pairs were rejected"))),
        _ => {
            let all = grouped(accepted + report.rejected);
            note(&format!("warning: {rejected} of {all} pairs were rejected"));
            Ok(())
        }
    }
}

/// Opens the service, the inputs and the rejects file. Sends nothing.
fn prepare(args: &LoadArgs, variables: &Variables) -> Result<(Load, Pieces), Failure> {
    let target = match args.dry_run {
        true => Target::DryRun(DryRun::new(Timestamp::now(), Settings::with([])?.frame)),
        false => Target::Service(Client::new(&args.target, variables)?),
    };
    let source = Source::open(args)?;
    // Created last, so that an earlier error leaves an existing file untouched.
    let rejects = match &args.rejects {
        Some(path) => Some(RejectsFile::create(path, source.paths(args))?),
        None => None,
    };
    let (pieces, progress) = source.start(args);
    let load = Load {
        target,
        retry_for: args.retry_for,
        max_rejects: args.max_rejects,
        rejects: RefCell::new(rejects),
        report: RefCell::default(),
        noted: Cell::default(),
        unreadable: RefCell::default(),
        in_flight: Cell::default(),
        progress,
    };
    Ok((load, pieces))
}

type Pieces = mpsc::Receiver<Piece>;

/// The source of pairs.
enum Source {
    Generated(Generate),
    Read(Inputs),
}

impl Source {
    fn open(args: &LoadArgs) -> Result<Self, Failure> {
        match args.generate.clone() {
            Some(generate) => Ok(Self::Generated(generate)),
            None => Inputs::open(&args.files, reader(args)).map(Self::Read),
        }
    }

    /// The paths of the inputs as given; `-` is standard input.
    fn paths<'a>(&self, args: &'a LoadArgs) -> &'a [PathBuf] {
        match self {
            Self::Generated(_) => &[],
            Self::Read(_) => paths(&args.files),
        }
    }

    /// Starts the thread that reads. It ends at the end of its input, or soon after the receiver is dropped.
    fn start(self, args: &LoadArgs) -> (Pieces, Progress) {
        let (sender, pieces) = mpsc::channel(args.connections as usize);
        let mut batcher = Batcher::new(sender, args.batch as usize);
        match self {
            Self::Generated(generate) => {
                let progress = Progress::new(Some(generate.pairs), &Unit::Pairs);
                batcher.enter("generated");
                let now = Timestamp::now().as_second();
                read_in_background(move || generate.pass(now, &mut batcher));
                (pieces, progress)
            }
            Self::Read(inputs) => {
                let progress = Progress::new(inputs.bytes, &Unit::Bytes);
                let position = Position::default();
                read_in_background(move || inputs.pass(&position, &mut batcher));
                (pieces, progress)
            }
        }
    }
}

fn reader(args: &LoadArgs) -> Reader {
    let for_tables = [
        ("--user-column", args.user_column.is_some()),
        ("--segment-column", args.segment_column.is_some()),
        ("--at-column", args.at_column.is_some()),
        ("--no-at-column", args.no_at_column),
        ("--delimiter", args.delimiter.is_some()),
    ];
    let given = for_tables.into_iter().filter(|(_, is_given)| *is_given);
    let name =
        |given: &Option<String>, usual: &str| given.clone().unwrap_or_else(|| usual.to_owned());
    Reader {
        format: args.format,
        columns: Columns {
            user: name(&args.user_column, "user_id"),
            segment: name(&args.segment_column, "segment"),
            at: match &args.at_column {
                Some(name) => TimeColumn::Named(name.clone()),
                None if args.no_at_column => TimeColumn::Off,
                None => TimeColumn::Known,
            },
            delimiter: args.delimiter,
        },
        for_tables: given.map(|(flag, _)| flag).collect(),
        times: Times {
            unit: args.time_unit,
            zone: args.zone.clone(),
        },
    }
}

/// Closing the channel stops the thread. The thread is not joined, since a blocked read of standard input can't be
/// cancelled; the process exits without it.
fn read_in_background(read: impl FnOnce() -> Result<(), batch::Stopped> + Send + 'static) {
    drop(tokio::task::spawn_blocking(move || read().ok()));
}

/// Where batches go.
enum Target {
    Service(Client),
    /// Batches are checked locally and not sent.
    DryRun(DryRun),
}

impl Target {
    async fn post(&self, body: Bytes) -> Result<Value, ClientError> {
        match self {
            Self::Service(client) => client.post_pairs(body).await,
            Self::DryRun(dry_run) => Ok(json!(dry_run.respond(&body))),
        }
    }
}

/// A load in progress. It runs on one thread.
struct Load {
    target: Target,
    retry_for: Duration,
    max_rejects: Option<u64>,
    rejects: RefCell<Option<RejectsFile>>,
    report: RefCell<Report>,
    noted: Cell<Option<Instant>>,
    /// Why the input could not be read to its end.
    unreadable: RefCell<Option<Failure>>,
    /// Pairs in flight: posted, without a result yet.
    in_flight: Cell<u64>,
    progress: Progress,
}

impl Load {
    /// Delivers all batches, or stops at the first that can't be delivered.
    async fn run(self, mut pieces: Pieces, connections: usize) -> (Report, Option<Failure>) {
        let started = Instant::now();
        let mut failure = None;
        {
            let stream = stream::poll_fn(|context| pieces.poll_recv(context));
            let mut deliveries = stream
                .map(|piece| self.handle(piece))
                .buffer_unordered(connections);
            let mut interrupted = pin!(tokio::signal::ctrl_c());
            while failure.is_none() {
                let done = tokio::select! {
                    done = deliveries.next() => done,
                    _ = &mut interrupted => Some(Err(Failure::failed("interrupted"))),
                };
                match done {
                    Some(Ok(())) => {}
                    Some(Err(first)) => failure = Some(first),
                    None => break,
                }
            }
        }
        if let Target::DryRun(dry_run) = &self.target {
            if let Some(warning) = dry_run.warning() {
                self.warn(&warning);
            }
            let mut report = self.report.borrow_mut();
            (report.dry_run, report.times) = (true, dry_run.times());
        }
        let written = self.rejects.into_inner().map(|mut file| file.finish());
        let mut report = self.report.into_inner();
        report.undelivered = self.in_flight.get();
        report.finish(started.elapsed());
        self.progress.finish();
        let failure = failure.or(self.unreadable.into_inner());
        (report, failure.or(written.and_then(Result::err)))
    }

    async fn handle(&self, piece: Piece) -> Result<(), Failure> {
        let batch = match piece {
            Piece::Batch(batch) => batch,
            Piece::Input(reading, warnings) => {
                self.report.borrow_mut().inputs.push(reading);
                for warning in warnings {
                    self.warn(&warning);
                }
                return Ok(());
            }
            Piece::Warning(warning) => {
                self.warn(&warning);
                return Ok(());
            }
            Piece::Failed(failure) => {
                // The reader has ended. The batches before the failure are still delivered.
                self.unreadable.replace(Some(failure));
                return Ok(());
            }
        };
        self.report.borrow_mut().refused(&batch);
        if let Some(file) = self.rejects.borrow_mut().as_mut() {
            file.refused(&batch)?;
        }
        if !batch.lines.is_empty() {
            self.deliver(&batch).await?;
        }
        let report = self.report.borrow();
        self.progress.at(batch.position, || {
            format!("{} accepted, {} rejected", report.accepted, report.rejected)
        });
        match self.max_rejects {
            Some(most) if report.rejected > most => Err(Failure::failed(format!(
                "stopped: more than {} pairs were rejected (--max-rejects)",
                grouped(most)
            ))),
            _ => Ok(()),
        }
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), Failure> {
        let pairs = batch.lines.len() as u64;
        self.in_flight.update(|sum| sum + pairs);
        let mut response = self.post(batch.body.clone(), pairs).await?;
        self.in_flight.update(|sum| sum - pairs);
        let listed = response.errors.len() as u64;
        if response.rejected > listed && self.rejects.borrow().is_some() {
            response.errors = self.all_errors(batch).await?;
        }
        self.report.borrow_mut().add_response(batch, &response);
        for warning in &response.warnings {
            // One warning per input is enough: one program wrote it all.
            if !self.report.borrow().has_warning_of(&batch.source) {
                self.warn(&format!("{}: {warning}", batch.source));
            }
        }
        match self.rejects.borrow_mut().as_mut() {
            Some(file) => file.write_rejected(batch, &response),
            None => Ok(()),
        }
    }

    /// Posts `body`, which has `pairs` lines, with retries. Fails if the result does not cover all of them.
    async fn post(&self, body: Bytes, pairs: u64) -> Result<PairsResponse, Failure> {
        let post = async |body| self.target.post(body).await;
        let retrying = |error: &ClientError, wait: Duration| self.retrying(error, wait);
        match deliver(post, body, self.retry_for, retrying).await {
            Ok(response) => match response.accepted + response.rejected == pairs {
                true => Ok(response),
                // A proxy in between may truncate requests.
                false => Err(Failure::failed(format!(
                    "the response covers {} of {pairs} pairs: does a proxy truncate requests?",
                    response.accepted + response.rejected
                ))),
            },
            Err(error) => {
                let too_large = matches!(&error, ClientError::Refused { refusal, .. }
                    if refusal.status == StatusCode::PAYLOAD_TOO_LARGE);
                let advice = if too_large {
                    "; give a smaller --batch"
                } else {
                    ""
                };
                Err(Failure::failed(format!("{error}{advice}")))
            }
        }
    }

    /// All errors of a batch of which the service listed only the first: the batch is posted again in chunks of `LISTED`
    /// lines. Posting a pair again has no effect.
    async fn all_errors(&self, batch: &Batch) -> Result<Vec<deliver::ItemError>, Failure> {
        let items: Vec<&[u8]> = batch.items().collect();
        let mut errors = Vec::new();
        for (number, piece) in items.chunks(LISTED).enumerate() {
            let body = Bytes::from(piece.join(&b'\n'));
            let response = self.post(body, piece.len() as u64).await?;
            errors.extend(response.errors.into_iter().map(|mut error| {
                error.index += number * LISTED;
                error
            }));
        }
        Ok(errors)
    }

    fn warn(&self, warning: &str) {
        let warning = sanitized(warning);
        self.progress.note(&format!("warning: {warning}"));
        self.report.borrow_mut().warnings.push(warning);
    }

    fn retrying(&self, error: &ClientError, wait: Duration) {
        self.report.borrow_mut().retries += 1;
        if self.noted.get().is_none_or(|at| at.elapsed() >= QUIET) {
            self.noted.set(Some(Instant::now()));
            let wait = wait.as_secs_f64();
            self.progress
                .note(&format!("{error}; retrying in {wait:.1} s"));
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
