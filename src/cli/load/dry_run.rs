//! `--dry-run`: checks pairs locally, with the checks of the service, and does not send them.
//!
//! What only the service knows is not checked: its window, its clock and its limit of segments.

use std::cell::Cell;

use super::deliver::{ItemError, PairsResponse};
use domain::{InvalidInstant, Segment, TimeFrame, Timestamp, UserId};
use engine::ingest::PairError;
use http::parse;

/// Checks pairs.
pub(super) struct DryRun {
    now: Timestamp,
    /// The frame of the default settings.
    frame: TimeFrame,
    /// The earliest and the latest time so far.
    times: Cell<Option<(Timestamp, Timestamp)>>,
    expired: Cell<u64>,
}

impl DryRun {
    pub(super) fn new(now: Timestamp, frame: TimeFrame) -> Self {
        Self {
            now,
            frame,
            times: Cell::default(),
            expired: Cell::default(),
        }
    }

    /// The response of a service to the lines in `body`.
    pub(super) fn respond(&self, body: &[u8]) -> PairsResponse {
        let mut accepted = 0;
        let report = parse::ndjson(
            body,
            &mut |user: &str, segment: &str, at: Option<Timestamp>| {
                self.check(user, segment, at)?;
                accepted += 1;
                Ok(())
            },
        );
        let rejected = report.rejected() as u64;
        let codes = report.rejected.iter();
        let codes = codes.map(|(code, pairs)| ((*code).to_owned(), *pairs as u64));
        let codes = codes.collect();
        let error = |error: parse::ItemError| ItemError {
            index: error.index,
            code: error.code.to_owned(),
            message: error.message,
        };
        PairsResponse {
            accepted,
            rejected,
            codes,
            errors: report.errors.into_iter().map(error).collect(),
            warnings: report.warnings,
            durable: None,
        }
    }

    fn check(&self, user: &str, segment: &str, at: Option<Timestamp>) -> Result<(), PairError> {
        UserId::new(user)?;
        Segment::new(segment)?;
        match self.frame.place(at, self.now) {
            Err(ahead @ InvalidInstant::InFuture(_)) => return Err(ahead.into()),
            Err(InvalidInstant::Expired(_)) => self.expired.update(|pairs| pairs + 1),
            Ok(_) => {}
        }
        if let Some(at) = at {
            let (first, last) = self.times.get().unwrap_or((at, at));
            self.times.set(Some((first.min(at), last.max(at))));
        }
        Ok(())
    }

    /// The earliest and the latest time, to the second.
    pub(super) fn times(&self) -> Option<[String; 2]> {
        let text = |at: Timestamp| format!("{at:.0}");
        self.times
            .get()
            .map(|(first, last)| [text(first), text(last)])
    }

    /// The warning about expired pairs, at the end.
    pub(super) fn warning(&self) -> Option<String> {
        let days = self.frame.full_window().seconds() / 86_400;
        match self.expired.get() {
            0 => None,
            pairs => Some(format!(
                "{pairs} pairs are older than {days} days: a service whose window is not longer rejects them as expired"
            )),
        }
    }
}
