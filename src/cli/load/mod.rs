//! `headcount load`: reads or makes up pairs, posts them in batches, reports.
//!
//! One thread reads and packs; the packed batches wait in a short channel; as many as there are connections
//! are under way at once. So memory is bounded however large the input is.

mod deliver;
mod generate;
mod lines;
mod parcel;
mod report;
mod source;
mod table;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use reqwest::StatusCode;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Failure;
use super::args::LoadArgs;
use super::client::{Client, ClientError};
use super::output::{print, print_json};
use super::progress::{Progress, Unit};
use super::variables::Variables;
use deliver::{Delivery, deliver};
pub(super) use generate::Generate;
use parcel::{Packer, Parcel};
use report::Report;
use source::{Inputs, Position};
use table::Columns;

/// While batches are turned away, people hear of it once in so long.
const QUIET: Duration = Duration::from_secs(5);

pub(super) async fn run(args: LoadArgs, variables: &Variables) -> Result<(), Failure> {
    let (load, parcels) = prepare(&args, variables)?;
    let (report, failure) = load.run(parcels, args.connections as usize).await;
    match args.json {
        true => print_json(&report)?,
        false => print(&report.text())?,
    }
    match failure {
        Some(failure) => Err(failure),
        None if args.strict && report.rejected > 0 => Err(Failure::failed(format!(
            "{} pairs were rejected",
            report.rejected
        ))),
        None => Ok(()),
    }
}

/// Opens everything that is needed; nothing has been sent when this fails.
fn prepare(args: &LoadArgs, variables: &Variables) -> Result<(Load, Parcels), Failure> {
    let client = Client::new(&args.target, variables)?;
    let (parcels, progress) = start_reading(args)?;
    let load = Load {
        client,
        retry_for: args.retry_for,
        report: RefCell::default(),
        noted: Cell::default(),
        unreadable: RefCell::default(),
        under_way: Cell::default(),
        progress,
    };
    Ok((load, parcels))
}

type Parcels = mpsc::Receiver<Result<Parcel, Failure>>;

/// Starts the thread that reads; it ends with its input, or soon after the receiver is dropped.
fn start_reading(args: &LoadArgs) -> Result<(Parcels, Progress), Failure> {
    let (sender, parcels) = mpsc::channel(args.connections as usize);
    let mut packer = Packer::new(sender, args.batch as usize);
    if let Some(generate) = args.generate.clone() {
        let progress = Progress::new(Some(generate.pairs), &Unit::Pairs);
        packer.enter("generated");
        let now = Timestamp::now().as_second();
        read_in_background(move || generate.pass(now, &mut packer));
        return Ok((parcels, progress));
    }
    let columns = Columns {
        user: args.user_column.clone(),
        segment: args.segment_column.clone(),
        at: args.at_column.clone(),
        delimiter: args.delimiter,
    };
    let inputs = Inputs::open(&args.files, args.format, columns)?;
    let progress = Progress::new(inputs.bytes, &Unit::Bytes);
    let position = Position::default();
    read_in_background(move || inputs.pass(&position, &mut packer));
    Ok((parcels, progress))
}

/// The thread's owner is the channel: closing it stops the thread. It is not joined, since a read of standard
/// input can't be called off; the process ends without it.
fn read_in_background(read: impl FnOnce() -> Result<(), parcel::Stopped> + Send + 'static) {
    drop(tokio::task::spawn_blocking(move || read().ok()));
}

/// A load under way, on one thread.
struct Load {
    client: Client,
    retry_for: Duration,
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
    async fn run(self, mut parcels: Parcels, connections: usize) -> (Report, Option<Failure>) {
        let started = Instant::now();
        let mut failure = None;
        {
            let stream = stream::poll_fn(|context| parcels.poll_recv(context));
            let mut under_way = stream
                .map(|parcel| self.handle(parcel))
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
        let mut report = self.report.into_inner();
        report.undelivered = self.under_way.get();
        report.finish(started.elapsed());
        self.progress.finish();
        (report, failure.or(self.unreadable.into_inner()))
    }

    async fn handle(&self, parcel: Result<Parcel, Failure>) -> Result<(), Failure> {
        let parcel = match parcel {
            Ok(parcel) => parcel,
            Err(failure) => {
                // The reader has ended; what it read before is still delivered.
                self.unreadable.replace(Some(failure));
                return Ok(());
            }
        };
        self.report.borrow_mut().refused(&parcel);
        if !parcel.lines.is_empty() {
            self.deliver(&parcel).await?;
        }
        let report = self.report.borrow();
        self.progress.at(parcel.position, || {
            format!("{} accepted, {} rejected", report.accepted, report.rejected)
        });
        Ok(())
    }

    async fn deliver(&self, parcel: &Parcel) -> Result<(), Failure> {
        let pairs = parcel.lines.len() as u64;
        self.under_way.update(|sum| sum + pairs);
        let post = async |body| self.client.post_pairs(body).await;
        let retrying = |error: &ClientError, wait: Duration| self.retrying(error, wait);
        match deliver(post, parcel.body.clone(), self.retry_for, retrying).await {
            Delivery::Judged(verdict) => {
                self.under_way.update(|sum| sum - pairs);
                self.report.borrow_mut().judged(parcel, &verdict);
                Ok(())
            }
            Delivery::GivenUp(error) => {
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
