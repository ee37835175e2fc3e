//! `headcount load`: reads or makes up pairs, posts them in batches, reports.
//!
//! One thread reads and packs; the packed batches wait in a short channel; as many as there are connections
//! are under way at once. So memory is bounded however large the input is.

mod columns;
mod content;
mod deliver;
mod documents;
mod dry_run;
mod generate;
mod lines;
mod parcel;
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
use super::output::{grouped, harmless, note, print, print_json};
use super::progress::{Progress, Unit};
use super::variables::Variables;
use crate::config::Settings;
use columns::{Columns, TimeColumn};
use deliver::{Verdict, deliver};
use dry_run::DryRun;
pub(super) use generate::Generate;
use parcel::{Packer, Parcel, Piece};
use position::Position;
use rejects::RejectsFile;
use report::Report;
use source::{Inputs, Reader, paths};
use times::Times;
pub(super) use times::zone;

/// While batches are turned away, people hear of it once in so long.
const QUIET: Duration = Duration::from_secs(5);

/// As many errors as a service lists of one request.
const LISTED: usize = 100;

pub(super) async fn run(args: LoadArgs, variables: &Variables) -> Result<(), Failure> {
    let (load, pieces) = prepare(&args, variables)?;
    let (report, failure) = load.run(pieces, args.connections as usize).await;
    match args.json {
        true => print_json(&report)?,
        false => print(&report.text())?,
    }
    match failure {
        Some(failure) => Err(failure),
        None => verdict(&report, args.strict),
    }
}

/// Whether a load that came to its end did what it was for.
fn verdict(report: &Report, strict: bool) -> Result<(), Failure> {
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

/// Opens everything that is needed; nothing has been sent when this fails.
fn prepare(args: &LoadArgs, variables: &Variables) -> Result<(Load, Pieces), Failure> {
    let target = match args.dry_run {
        true => Target::Nobody(DryRun::new(Timestamp::now(), Settings::with([])?.frame)),
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
        under_way: Cell::default(),
        progress,
    };
    Ok((load, pieces))
}

type Pieces = mpsc::Receiver<Piece>;

/// Where pairs come from.
enum Source {
    Made(Generate),
    Read(Inputs),
}

impl Source {
    fn open(args: &LoadArgs) -> Result<Self, Failure> {
        match args.generate.clone() {
            Some(generate) => Ok(Self::Made(generate)),
            None => Inputs::open(&args.files, reader(args)).map(Self::Read),
        }
    }

    /// What is read, as it was named.
    fn paths<'a>(&self, args: &'a LoadArgs) -> &'a [PathBuf] {
        match self {
            Self::Made(_) => &[],
            Self::Read(_) => paths(&args.files),
        }
    }

    /// Starts the thread that reads; it ends with its input, or soon after the receiver is dropped.
    fn start(self, args: &LoadArgs) -> (Pieces, Progress) {
        let (sender, pieces) = mpsc::channel(args.connections as usize);
        let mut packer = Packer::new(sender, args.batch as usize);
        match self {
            Self::Made(generate) => {
                let progress = Progress::new(Some(generate.pairs), &Unit::Pairs);
                packer.enter("generated");
                let now = Timestamp::now().as_second();
                read_in_background(move || generate.pass(now, &mut packer));
                (pieces, progress)
            }
            Self::Read(inputs) => {
                let progress = Progress::new(inputs.bytes, &Unit::Bytes);
                let position = Position::default();
                read_in_background(move || inputs.pass(&position, &mut packer));
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

/// The thread's owner is the channel: closing it stops the thread. It is not joined, since a read of standard
/// input can't be called off; the process ends without it.
fn read_in_background(read: impl FnOnce() -> Result<(), parcel::Stopped> + Send + 'static) {
    drop(tokio::task::spawn_blocking(move || read().ok()));
}

/// Who judges pairs.
enum Target {
    Service(Client),
    /// Nobody is sent anything.
    Nobody(DryRun),
}

impl Target {
    async fn post(&self, body: Bytes) -> Result<Value, ClientError> {
        match self {
            Self::Service(client) => client.post_pairs(body).await,
            Self::Nobody(dry_run) => Ok(json!(dry_run.judge(&body))),
        }
    }
}

/// A load under way, on one thread.
struct Load {
    target: Target,
    retry_for: Duration,
    max_rejects: Option<u64>,
    rejects: RefCell<Option<RejectsFile>>,
    report: RefCell<Report>,
    noted: Cell<Option<Instant>>,
    /// Why the input could not be read to its end.
    unreadable: RefCell<Option<Failure>>,
    /// Pairs that were posted and not judged yet.
    under_way: Cell<u64>,
    progress: Progress,
}

impl Load {
    /// Delivers all parcels, or stops at the first that can't be delivered.
    async fn run(self, mut pieces: Pieces, connections: usize) -> (Report, Option<Failure>) {
        let started = Instant::now();
        let mut failure = None;
        {
            let stream = stream::poll_fn(|context| pieces.poll_recv(context));
            let mut under_way = stream
                .map(|piece| self.handle(piece))
                .buffer_unordered(connections);
            let mut interrupted = pin!(tokio::signal::ctrl_c());
            while failure.is_none() {
                let done = tokio::select! {
                    done = under_way.next() => done,
                    _ = &mut interrupted => Some(Err(Failure::failed("interrupted"))),
                };
                match done {
                    Some(Ok(())) => {}
                    Some(Err(first)) => failure = Some(first),
                    None => break,
                }
            }
        }
        if let Target::Nobody(dry_run) = &self.target {
            if let Some(warning) = dry_run.warning() {
                self.warn(&warning);
            }
            let mut report = self.report.borrow_mut();
            (report.dry_run, report.times) = (true, dry_run.times());
        }
        let written = self.rejects.into_inner().map(|mut file| file.finish());
        let mut report = self.report.into_inner();
        report.undelivered = self.under_way.get();
        report.finish(started.elapsed());
        self.progress.finish();
        let failure = failure.or(self.unreadable.into_inner());
        (report, failure.or(written.and_then(Result::err)))
    }

    async fn handle(&self, piece: Piece) -> Result<(), Failure> {
        let parcel = match piece {
            Piece::Parcel(parcel) => parcel,
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
                // The reader has ended; what it read before is still delivered.
                self.unreadable.replace(Some(failure));
                return Ok(());
            }
        };
        self.report.borrow_mut().refused(&parcel);
        if let Some(file) = self.rejects.borrow_mut().as_mut() {
            file.refused(&parcel)?;
        }
        if !parcel.lines.is_empty() {
            self.deliver(&parcel).await?;
        }
        let report = self.report.borrow();
        self.progress.at(parcel.position, || {
            format!("{} accepted, {} rejected", report.accepted, report.rejected)
        });
        match self.max_rejects {
            Some(most) if report.rejected > most => Err(Failure::failed(format!(
                "more than {} pairs were rejected, which --max-rejects allows: stopped",
                grouped(most)
            ))),
            _ => Ok(()),
        }
    }

    async fn deliver(&self, parcel: &Parcel) -> Result<(), Failure> {
        let pairs = parcel.lines.len() as u64;
        self.under_way.update(|sum| sum + pairs);
        let mut verdict = self.judge(parcel.body.clone(), pairs).await?;
        self.under_way.update(|sum| sum - pairs);
        let listed = verdict.errors.len() as u64;
        if verdict.rejected > listed && self.rejects.borrow().is_some() {
            verdict.errors = self.all_errors(parcel).await?;
        }
        self.report.borrow_mut().judged(parcel, &verdict);
        for warning in &verdict.warnings {
            // One is enough: what one program wrote is alike.
            if !self.report.borrow().has_warning_of(&parcel.source) {
                self.warn(&format!("{}: {warning}", parcel.source));
            }
        }
        match self.rejects.borrow_mut().as_mut() {
            Some(file) => file.judged(parcel, &verdict),
            None => Ok(()),
        }
    }

    /// Posts `pairs` lines until they are judged.
    async fn judge(&self, body: Bytes, pairs: u64) -> Result<Verdict, Failure> {
        let post = async |body| self.target.post(body).await;
        let retrying = |error: &ClientError, wait: Duration| self.retrying(error, wait);
        match deliver(post, body, self.retry_for, retrying).await {
            Ok(verdict) => match verdict.accepted + verdict.rejected == pairs {
                true => Ok(verdict),
                // Something between here and the service keeps a part for itself.
                false => Err(Failure::failed(format!(
                    "the service judged {} of {pairs} pairs: is there a proxy that cuts requests?",
                    verdict.accepted + verdict.rejected
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

    /// Every error of a parcel of which the service listed only the first: it is posted again in small pieces, which
    /// changes nothing, since a pair counts once however often it comes.
    async fn all_errors(&self, parcel: &Parcel) -> Result<Vec<deliver::ItemError>, Failure> {
        let items: Vec<&[u8]> = parcel.items().collect();
        let mut errors = Vec::new();
        for (number, piece) in items.chunks(LISTED).enumerate() {
            let body = Bytes::from(piece.join(&b'\n'));
            let verdict = self.judge(body, piece.len() as u64).await?;
            errors.extend(verdict.errors.into_iter().map(|mut error| {
                error.index += number * LISTED;
                error
            }));
        }
        Ok(errors)
    }

    fn warn(&self, warning: &str) {
        let warning = harmless(warning);
        self.progress.note(&format!("warning: {warning}"));
        self.report.borrow_mut().warnings.push(warning);
    }

    fn retrying(&self, error: &ClientError, wait: Duration) {
        self.report.borrow_mut().retries += 1;
        if self.noted.get().is_none_or(|at| at.elapsed() >= QUIET) {
            self.noted.set(Some(Instant::now()));
            let wait = wait.as_secs_f64();
            self.progress
                .note(&format!("{error}; trying again in {wait:.1} s"));
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
