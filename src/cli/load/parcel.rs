//! Lines on their way to the service, packed into requests of bounded size.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::reading::Reading;
use super::times::Times;
use crate::cli::Failure;

/// Most bytes of one request: half of the service's default `max_body`.
const MAX_BYTES: usize = 4 << 20;

/// The longest line worth sending. A pair with the longest names has some 3 KiB, escapes included; the rest is
/// room for fields that the service ignores.
pub(super) const MAX_LINE: usize = 1 << 20;

/// What the reader hands over.
#[derive(Debug)]
pub(super) enum Piece {
    /// How the next input is read, and what is odd about it.
    Input(Reading, Vec<String>),
    /// What is odd about the input, further on.
    Warning(String),
    /// Pairs to post.
    Parcel(Parcel),
    /// The input can't be read to its end.
    Failed(Failure),
}

/// One request's worth of pairs, and where each came from.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// The file's name, or what stands for it.
    pub(super) source: Arc<str>,
    /// NDJSON, ready to be posted; empty when every line was refused here.
    pub(super) body: Bytes,
    /// For each line of the body: the line of the input.
    pub(super) lines: Vec<u64>,
    /// What never made it into the body.
    pub(super) refused: Vec<Refused>,
    /// Rows whose field for the time is empty.
    pub(super) untimed: u64,
    /// How much of the input had been read when this was packed, in the units of the progress bar.
    pub(super) position: u64,
}

/// A line of the input that could not be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) line: u64,
    pub(super) message: String,
    /// What stood there, as far as it is text and short.
    pub(super) item: Option<String>,
}

/// As much as is kept of what was refused.
const MAX_KEPT: usize = 4 << 10;

/// Nobody takes parcels any more: stop reading.
#[derive(Debug)]
pub(super) struct Stopped;

/// Packs lines into parcels and hands each over, waiting while the receiver has enough.
pub(super) struct Packer {
    to: Sender<Piece>,
    most: usize,
    source: Arc<str>,
    body: Vec<u8>,
    lines: Vec<u64>,
    refused: Vec<Refused>,
    untimed: u64,
}

impl Parcel {
    /// The lines of the body.
    pub(super) fn items(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.body.strip_suffix(b"\n").unwrap_or(&self.body);
        lines.split(|byte| *byte == b'\n').take(self.lines.len())
    }
}

impl Packer {
    /// A packer of parcels of at most `most` lines.
    pub(super) fn new(to: Sender<Piece>, most: usize) -> Self {
        Self {
            to,
            most,
            source: Arc::from(""),
            body: Vec::new(),
            lines: Vec::new(),
            refused: Vec::new(),
            untimed: 0,
        }
    }

    /// Says where the next lines come from. Flush before, so that a parcel has one source.
    pub(super) fn enter(&mut self, source: &str) {
        self.source = source.into();
    }

    /// Says how the input is read from here on, with warnings.
    pub(super) fn announce(
        &mut self,
        reading: Reading,
        warnings: Vec<String>,
    ) -> Result<(), Stopped> {
        let piece = Piece::Input(reading, warnings);
        self.to.blocking_send(piece).map_err(|_| Stopped)
    }

    /// Says what is odd about the input.
    pub(super) fn warn(&mut self, text: &str) -> Result<(), Stopped> {
        let piece = Piece::Warning(format!("{}: {text}", self.source));
        self.to.blocking_send(piece).map_err(|_| Stopped)
    }

    /// Notes that the row that is added next has no time.
    pub(super) fn untimed(&mut self) {
        self.untimed += 1;
    }

    /// Adds an item of JSON, its time put right by `times`.
    pub(super) fn add_json(
        &mut self,
        line: u64,
        json: &[u8],
        times: &Times,
        position: u64,
    ) -> Result<(), Stopped> {
        match times.of_item(json) {
            Ok(json) => self.add(line, &json, position),
            Err(message) => self.refuse(line, message, Some(json), position),
        }
    }

    /// Adds a line of NDJSON without its end.
    pub(super) fn add(&mut self, line: u64, json: &[u8], position: u64) -> Result<(), Stopped> {
        if self.body.len() + json.len() >= MAX_BYTES {
            self.flush(position)?;
        }
        self.body.extend_from_slice(json);
        self.body.push(b'\n');
        self.lines.push(line);
        self.flush_if_full(position)
    }

    /// Notes a line that can't be sent, and what stood there.
    pub(super) fn refuse(
        &mut self,
        line: u64,
        message: impl Into<String>,
        item: Option<&[u8]>,
        position: u64,
    ) -> Result<(), Stopped> {
        let short = item.filter(|item| item.len() <= MAX_KEPT);
        self.refused.push(Refused {
            line,
            message: message.into(),
            item: short.map(|item| String::from_utf8_lossy(item).into_owned()),
        });
        self.flush_if_full(position)
    }

    fn flush_if_full(&mut self, position: u64) -> Result<(), Stopped> {
        match self.lines.len() + self.refused.len() >= self.most {
            true => self.flush(position),
            false => Ok(()),
        }
    }

    /// Hands over what has gathered.
    pub(super) fn flush(&mut self, position: u64) -> Result<(), Stopped> {
        if self.lines.is_empty() && self.refused.is_empty() {
            return Ok(());
        }
        let room = self.body.len();
        let parcel = Parcel {
            source: Arc::clone(&self.source),
            body: Bytes::from(std::mem::replace(&mut self.body, Vec::with_capacity(room))),
            lines: std::mem::take(&mut self.lines),
            refused: std::mem::take(&mut self.refused),
            untimed: std::mem::take(&mut self.untimed),
            position,
        };
        let piece = Piece::Parcel(parcel);
        self.to.blocking_send(piece).map_err(|_| Stopped)
    }

    /// Reports that the input can't be read any further, after handing over what could be.
    pub(super) fn fail(&mut self, position: u64, why: Failure) -> Stopped {
        let failure = match why {
            Failure::Usage(text) => Failure::Usage(format!("{}: {text}", self.source)),
            Failure::Failed(text) => Failure::Failed(format!("{}: {text}", self.source)),
        };
        if let Err(stopped) = self.flush(position) {
            return stopped;
        }
        // Where nobody takes it, nobody needs it.
        let _ = self.to.blocking_send(Piece::Failed(failure));
        Stopped
    }
}
