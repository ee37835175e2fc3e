//! The writer: the thread that owns the active file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::active::{ActiveFile, Fault};
use super::format::{Group, MAX_GROUP_BYTES};
use super::{Apply, LogError, LogOptions, Position};

/// The channel for a response. If the caller has gone, the response is dropped.
type Responder<T> = oneshot::Sender<Result<T, LogError>>;

/// A request to the writer.
#[derive(Debug)]
pub(super) enum Request {
    Append {
        payload: Bytes,
        responder: Responder<Position>,
    },
    Rotate {
        responder: Responder<u64>,
    },
    Close {
        responder: Responder<()>,
    },
}

/// The state that the writer shares with the [`Log`](super::Log).
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    /// The size of each file by its number.
    pub(super) sizes: Mutex<BTreeMap<u64, u64>>,
    /// The reason why writing has stopped for good, if it has.
    pub(super) failure: OnceLock<String>,
    pub(super) closed: AtomicBool,
}

pub(super) struct Writer {
    pub(super) shared: std::sync::Arc<Shared>,
    pub(super) options: LogOptions,
    pub(super) active: ActiveFile,
    pub(super) apply: Apply,
    group: Group,
    waiting: Vec<Waiting>,
}

/// A record of the current group, whose caller waits for the response.
struct Waiting {
    payload: Bytes,
    /// From the start of the group.
    offset: u64,
    responder: Responder<Position>,
}

impl Writer {
    pub(super) fn new(
        shared: std::sync::Arc<Shared>,
        options: LogOptions,
        active: ActiveFile,
        apply: Apply,
    ) -> Self {
        Self {
            shared,
            options,
            active,
            apply,
            group: Group::new(),
            waiting: Vec::new(),
        }
    }

    /// Runs until it is closed, or until all senders are dropped.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut closing = Vec::new();
        while let Some(request) = requests.blocking_recv() {
            let mut next = Some(request);
            while let Some(request) = next.take() {
                match request {
                    Request::Append { payload, responder } => {
                        let offset = self.group.push(&payload);
                        self.waiting.push(Waiting {
                            payload,
                            offset,
                            responder,
                        });
                    }
                    Request::Rotate { responder } => {
                        self.commit();
                        let _ = responder.send(self.rotate());
                    }
                    Request::Close { responder } => {
                        // Requests that were queued before this are still processed.
                        requests.close();
                        closing.push(responder);
                    }
                }
                if self.group.body().len() < self.group_bytes() {
                    next = requests.try_recv().ok();
                }
            }
            self.commit();
        }
        if self.shared.failure.get().is_none()
            && let Err(Fault::Refused(error) | Fault::Fatal(error)) = self.active.seal()
        {
            tracing::warn!(%error, "the log's last file was closed without a seal");
        }
        // The file is closed before the responses are sent, and not touched after.
        drop(self);
        for responder in closing {
            let _ = responder.send(Ok(()));
        }
    }

    fn group_bytes(&self) -> usize {
        self.options.group_bytes.min(MAX_GROUP_BYTES)
    }

    /// Writes, syncs and applies the current group, then responds to its callers.
    fn commit(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let written = self.write();
        let full = matches!(written, Err(LogError::Full { .. }));
        let start = match written {
            Ok(start) => start,
            Err(error) => {
                self.options.observer.failed(full);
                for waiting in self.waiting.drain(..) {
                    let _ = waiting.responder.send(Err(error.clone()));
                }
                self.group.clear(self.options.group_bytes);
                return;
            }
        };
        let mut waiting = std::mem::take(&mut self.waiting);
        for Waiting {
            payload,
            offset,
            responder,
        } in waiting.drain(..)
        {
            let position = Position {
                file: self.active.id.number,
                offset: start + offset,
            };
            let applied = match (self.apply)(position, &payload) {
                Ok(()) => Ok(position),
                // The record is durable, and replay will reject it in the same way: no record may follow it.
                Err(reason) => Err(self.fail(format!("a record is invalid: {reason}"))),
            };
            let _ = responder.send(applied);
        }
        self.waiting = waiting;
        self.group.clear(self.options.group_bytes);
    }

    /// Writes and syncs the group; returns its offset.
    fn write(&mut self) -> Result<u64, LogError> {
        self.check()?;
        if self.active.end >= self.options.file_bytes {
            self.rotate()?;
        }
        let start = self.active.end;
        let begun = Instant::now();
        match self.active.append(&mut self.group) {
            Ok(()) => {
                let bytes = self.active.end - start;
                self.note_size();
                self.options
                    .observer
                    .synced(self.waiting.len(), bytes as usize, begun.elapsed());
                Ok(start)
            }
            Err(Fault::Refused(error)) => Err(error),
            Err(Fault::Fatal(error)) => Err(self.fail(error.to_string())),
        }
    }

    /// Starts a new file, unless the active one is empty. Returns the number of the active file.
    fn rotate(&mut self) -> Result<u64, LogError> {
        self.check()?;
        if self.active.end == super::format::FILE_HEADER as u64 {
            return Ok(self.active.id.number);
        }
        // Each file but the last ends with a seal: without it, the loss of its last groups would not be detected.
        match self.active.seal() {
            Ok(()) => self.note_size(),
            Err(Fault::Refused(error)) => return Err(error),
            Err(Fault::Fatal(error)) => return Err(self.fail(error.to_string())),
        }
        let number = self.active.id.number + 1;
        let disk = self.options.disk.as_ref();
        match ActiveFile::create(disk, &self.shared.dir, number) {
            Ok(active) => {
                self.active = active;
                self.note_size();
                Ok(number)
            }
            // The new file may exist or not. If it does, no further record may go into the old one.
            Err(LogError::Failed(reason)) => Err(self.fail(reason)),
            Err(error) => Err(error),
        }
    }

    fn check(&self) -> Result<(), LogError> {
        match self.shared.failure.get() {
            Some(reason) => Err(LogError::Failed(reason.clone())),
            None => Ok(()),
        }
    }

    /// Stops writing for good.
    fn fail(&self, reason: String) -> LogError {
        let reason = self.shared.failure.get_or_init(|| {
            tracing::error!(%reason, "the log can no longer be written; restart once the disk works");
            reason
        });
        LogError::Failed(reason.clone())
    }

    fn note_size(&self) {
        let mut sizes = self.shared.sizes.lock();
        sizes.insert(self.active.id.number, self.active.end);
    }
}
