//! Batches of lines: the body of one request, of bounded size, with the position of each line in the input.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::reading::Reading;
use super::times::Times;
use crate::cli::Failure;

/// The maximum size of a body in bytes: half of the service's default `max_body`.
const MAX_BYTES: usize = 4 << 20;

/// The maximum length of a line in bytes. A pair with the longest names takes about 3 KiB, escapes included. The rest is
/// for fields that the service ignores.
pub(super) const MAX_LINE: usize = 1 << 20;

/// What the reader sends over the channel.
#[derive(Debug)]
pub(super) enum Piece {
    /// How the next input is read, with warnings about it.
    Input(Reading, Vec<String>),
    /// A later warning about the input.
    Warning(String),
    /// Pairs to post.
    Batch(Batch),
    /// The input can't be read to its end.
    Failed(Failure),
}

/// The lines of one request, and the line of the input that each came from.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The file's name, or `standard input` or `generated`.
    pub(super) source: Arc<str>,
    /// NDJSON, ready to be posted; empty if every line was refused here.
    pub(super) body: Bytes,
    /// For each line of the body: the line of the input.
    pub(super) lines: Vec<u64>,
    /// The lines of the input that can't be sent.
    pub(super) refused: Vec<Refused>,
    /// The number of rows whose time is empty.
    pub(super) untimed: u64,
    /// How much of the input had been read when this batch was complete, in the units of the progress bar.
    pub(super) position: u64,
}

/// A line of the input that can't be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) line: u64,
    pub(super) message: String,
    /// The content of the line, unless it is longer than `MAX_KEPT`; invalid UTF-8 is replaced.
    pub(super) item: Option<String>,
}

/// The maximum length of a refused line that is kept, in bytes.
const MAX_KEPT: usize = 4 << 10;

/// The receiver of batches is gone, or the input failed: stop reading.
#[derive(Debug)]
pub(super) struct Stopped;

/// Collects lines into batches and sends each over a channel, blocking while the channel is full.
pub(super) struct Batcher {
    to: Sender<Piece>,
    max_lines: usize,
    source: Arc<str>,
    body: Vec<u8>,
    lines: Vec<u64>,
    refused: Vec<Refused>,
    untimed: u64,
}

impl Batch {
    /// The lines of the body.
    pub(super) fn items(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.body.strip_suffix(b"\n").unwrap_or(&self.body);
        lines.split(|byte| *byte == b'\n').take(self.lines.len())
    }
}

impl Batcher {
    /// Creates a batcher with at most `max_lines` lines in a batch.
    pub(super) fn new(to: Sender<Piece>, max_lines: usize) -> Self {
        Self {
            to,
            max_lines,
            source: Arc::from(""),
            body: Vec::new(),
            lines: Vec::new(),
            refused: Vec::new(),
            untimed: 0,
        }
    }

    /// Sets the source of the next lines. Call `flush` before, so that a batch has one source.
    pub(super) fn enter(&mut self, source: &str) {
        self.source = source.into();
    }

    /// Reports how the input is read, with warnings about it.
    pub(super) fn announce(
        &mut self,
        reading: Reading,
        warnings: Vec<String>,
    ) -> Result<(), Stopped> {
        let piece = Piece::Input(reading, warnings);
        self.to.blocking_send(piece).map_err(|_| Stopped)
    }

    /// Reports a warning about the input.
    pub(super) fn warn(&mut self, text: &str) -> Result<(), Stopped> {
        let piece = Piece::Warning(format!("{}: {text}", self.source));
        self.to.blocking_send(piece).map_err(|_| Stopped)
    }

    /// Records that the next row has no time.
    pub(super) fn untimed(&mut self) {
        self.untimed += 1;
    }

    /// Adds a JSON item, with its time normalised by `times`.
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

    /// Adds a line of NDJSON, given without its line end.
    pub(super) fn add(&mut self, line: u64, json: &[u8], position: u64) -> Result<(), Stopped> {
        if self.body.len() + json.len() >= MAX_BYTES {
            self.flush(position)?;
        }
        self.body.extend_from_slice(json);
        self.body.push(b'\n');
        self.lines.push(line);
        self.flush_if_full(position)
    }

    /// Records a line that can't be sent, with its content.
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
        match self.lines.len() + self.refused.len() >= self.max_lines {
            true => self.flush(position),
            false => Ok(()),
        }
    }

    /// Sends the current batch, if it is not empty.
    pub(super) fn flush(&mut self, position: u64) -> Result<(), Stopped> {
        if self.lines.is_empty() && self.refused.is_empty() {
            return Ok(());
        }
        let capacity = self.body.len();
        let batch = Batch {
            source: Arc::clone(&self.source),
            body: Bytes::from(std::mem::replace(
                &mut self.body,
                Vec::with_capacity(capacity),
            )),
            lines: std::mem::take(&mut self.lines),
            refused: std::mem::take(&mut self.refused),
            untimed: std::mem::take(&mut self.untimed),
            position,
        };
        let piece = Piece::Batch(batch);
        self.to.blocking_send(piece).map_err(|_| Stopped)
    }

    /// Sends the current batch, then reports that the input can't be read any further.
    pub(super) fn fail(&mut self, position: u64, why: Failure) -> Stopped {
        let failure = match why {
            Failure::Usage(text) => Failure::Usage(format!("{}: {text}", self.source)),
            Failure::Failed(text) => Failure::Failed(format!("{}: {text}", self.source)),
        };
        if let Err(stopped) = self.flush(position) {
            return stopped;
        }
        // If the receiver is gone, the failure is of no interest.
        let _ = self.to.blocking_send(Piece::Failed(failure));
        Stopped
    }
}
