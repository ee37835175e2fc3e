//! The thread that owns the file which is written.

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

/// Where an answer goes. Nobody may be waiting any more: then it is dropped.
type Answer<T> = oneshot::Sender<Result<T, LogError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    Append {
        payload: Bytes,
        answer: Answer<Position>,
    },
    Rotate {
        answer: Answer<u64>,
    },
    Close {
        answer: Answer<()>,
    },
}

/// What the writer and the log's owner both know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    /// The size of each file by its number.
    pub(super) sizes: Mutex<BTreeMap<u64, u64>>,
    /// Why writing has stopped for good, once it has.
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

/// A record of the group in the making.
struct Waiting {
    payload: Bytes,
    /// From the start of the group.
    offset: u64,
    answer: Answer<Position>,
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

    /// Works until it is told to close, or until nobody can ask any more.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut closing = Vec::new();
        while let Some(request) = requests.blocking_recv() {
            let mut next = Some(request);
            while let Some(request) = next.take() {
                match request {
                    Request::Append { payload, answer } => {
                        let offset = self.group.push(&payload);
                        self.waiting.push(Waiting {
                            payload,
                            offset,
                            answer,
                        });
                    }
                    Request::Rotate { answer } => {
                        self.commit();
                        let _ = answer.send(self.rotate());
                    }
                    Request::Close { answer } => {
                        // What came in before this still gets its answer.
                        requests.close();
                        closing.push(answer);
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
        // The file is closed, and nothing is touched any more, when the answers go out.
        drop(self);
        for answer in closing {
            let _ = answer.send(Ok(()));
        }
    }

    fn group_bytes(&self) -> usize {
        self.options.group_bytes.min(MAX_GROUP_BYTES)
    }

    /// Writes, syncs, applies and answers what waits.
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
                    let _ = waiting.answer.send(Err(error.clone()));
                }
                self.group.clear(self.options.group_bytes);
                return;
            }
        };
        let mut waiting = std::mem::take(&mut self.waiting);
        for Waiting {
            payload,
            offset,
            answer,
        } in waiting.drain(..)
        {
            let position = Position {
                file: self.active.id.number,
                offset: start + offset,
            };
            let applied = match (self.apply)(position, &payload) {
                Ok(()) => Ok(position),
                // The record is durable, and replay will refuse it like this: nothing may follow it.
                Err(reason) => Err(self.fail(format!("a record was not understood: {reason}"))),
            };
            let _ = answer.send(applied);
        }
        self.waiting = waiting;
        self.group.clear(self.options.group_bytes);
    }

    /// Writes and syncs the group; returns where it starts.
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

    /// Goes on with a new file, unless this one is empty. Returns its number.
    fn rotate(&mut self) -> Result<u64, LogError> {
        self.check()?;
        if self.active.end == super::format::FILE_HEADER as u64 {
            return Ok(self.active.id.number);
        }
        // A file that another follows ends with a seal: without it, a loss of its last groups would not show.
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
            // The new file may be there or not: going on with this one could put records before its end.
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

    /// Ends writing for good.
    fn fail(&self, reason: String) -> LogError {
        let reason = self.shared.failure.get_or_init(|| {
            tracing::error!(%reason, "the log can't be written any more; restart once the disk works");
            reason
        });
        LogError::Failed(reason.clone())
    }

    fn note_size(&self) {
        let mut sizes = self.shared.sizes.lock();
        sizes.insert(self.active.id.number, self.active.end);
    }
}
