//! The handle of an open log.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::format::MAX_PAYLOAD;
use super::writer::{Request, Shared, Writer};
use super::{Apply, LockedDir, LogError, LogOptions, Position, Recovery, file_name, recovery};

/// An open log. See the [crate](super) for its guarantees.
#[derive(Debug)]
pub struct Log {
    // `None` only during drop.
    requests: Option<mpsc::Sender<Request>>,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    disk: Arc<dyn super::Disk>,
    recovery: Recovery,
    // Held until the log is closed.
    dir: Mutex<Option<Arc<LockedDir>>>,
}

/// The state of a log, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// The size of all files, in bytes.
    pub bytes: u64,
    /// The number of files.
    pub files: u64,
    /// The number of requests in the writer's queue.
    pub queued: u64,
}

impl Log {
    /// Opens the log in `dir`: calls `apply` with every existing record, then starts the writer, which calls it with
    /// every new record.
    pub fn open(
        dir: Arc<LockedDir>,
        options: LogOptions,
        mut apply: Apply,
    ) -> Result<Self, LogError> {
        let (active, sizes, recovery) = recovery::open(dir.path(), &options, &mut apply)?;
        let (requests, received) = mpsc::channel(options.queue.max(1));
        let shared = Arc::new(Shared {
            dir: dir.path().to_path_buf(),
            sizes: Mutex::new(sizes),
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
        });
        let disk = Arc::clone(&options.disk);
        let thread = thread::Builder::new().name(options.thread_name.clone());
        let writer = Writer::new(Arc::clone(&shared), options, active, apply);
        let writer = thread
            .spawn(move || writer.run(received))
            .map_err(|error| LogError::io("start the writer for", dir.path(), &error))?;
        Ok(Self {
            requests: Some(requests),
            shared,
            writer: Mutex::new(Some(writer)),
            disk,
            recovery,
            dir: Mutex::new(Some(dir)),
        })
    }

    /// The result of replay when the log was opened.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Appends a record. When it returns `Ok`, the record is durable and applied. If the future is dropped, the record
    /// may or may not be appended.
    ///
    /// After [`LogError::Full`] and [`LogError::Io`] the record is not in the log; after [`LogError::Failed`] it may be.
    pub async fn append(&self, payload: impl Into<Bytes>) -> Result<Position, LogError> {
        let payload = checked(payload.into())?;
        self.send(|responder| Request::Append { payload, responder })
            .await
    }

    /// The same as [`append`](Self::append), for a thread outside an async runtime.
    pub fn append_blocking(&self, payload: impl Into<Bytes>) -> Result<Position, LogError> {
        let payload = checked(payload.into())?;
        self.send_blocking(|responder| Request::Append { payload, responder })
    }

    /// Starts a new file, unless the active one is empty. Returns the number of the active file. Every record in the
    /// files before it has been applied.
    pub async fn rotate(&self) -> Result<u64, LogError> {
        self.send(|responder| Request::Rotate { responder }).await
    }

    /// The same as [`rotate`](Self::rotate), for a thread outside an async runtime.
    pub fn rotate_blocking(&self) -> Result<u64, LogError> {
        self.send_blocking(|responder| Request::Rotate { responder })
    }

    /// Removes the files before `number`, except the active one. Returns the number of removed bytes. It blocks on the
    /// file system.
    pub fn remove_before(&self, number: u64) -> Result<u64, LogError> {
        let mut removed = 0;
        loop {
            let oldest = {
                let sizes = self.shared.sizes.lock();
                match (sizes.first_key_value(), sizes.len()) {
                    (Some((&file, &size)), 2..) if file < number => Some((file, size)),
                    _ => None,
                }
            };
            let Some((file, size)) = oldest else { break };
            let path = self.shared.dir.join(file_name(file));
            // The oldest first, so that a crash in between leaves no gap.
            self.disk
                .remove(&path)
                .map_err(|error| LogError::io("remove", &path, &error))?;
            self.shared.sizes.lock().remove(&file);
            removed += size;
        }
        if removed > 0 {
            let dir = &self.shared.dir;
            self.disk
                .sync_dir(dir)
                .map_err(|error| LogError::io("sync", dir, &error))?;
        }
        Ok(removed)
    }

    /// The number of the oldest file.
    pub fn oldest_file(&self) -> u64 {
        let sizes = self.shared.sizes.lock();
        sizes.keys().next().copied().unwrap_or(0)
    }

    /// The number of the newest file, which is the active one.
    pub fn newest_file(&self) -> u64 {
        let sizes = self.shared.sizes.lock();
        sizes.keys().next_back().copied().unwrap_or(0)
    }

    /// The size of the files from `number` on, in bytes.
    pub fn bytes_from(&self, number: u64) -> u64 {
        self.shared
            .sizes
            .lock()
            .range(number..)
            .map(|(_, size)| size)
            .sum()
    }

    /// Returns the current statistics.
    pub fn stats(&self) -> LogStats {
        let queued = match &self.requests {
            Some(requests) => requests.max_capacity() - requests.capacity(),
            None => 0,
        };
        let sizes = self.shared.sizes.lock();
        LogStats {
            bytes: sizes.values().sum(),
            files: sizes.len() as u64,
            queued: queued as u64,
        }
    }

    /// Checks whether records can be appended. Fails with the error that every append would return.
    pub fn check(&self) -> Result<(), LogError> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(LogError::Closed);
        }
        match self.shared.failure.get() {
            Some(reason) => Err(LogError::Failed(reason.clone())),
            None if self.sender()?.is_closed() => Err(self.unavailable()),
            None => Ok(()),
        }
    }

    /// Writes all queued records, seals the file, stops the writer and releases its share of the directory's lock.
    /// Later appends fail with [`LogError::Closed`]. Closing again does nothing.
    pub async fn close(&self) -> Result<(), LogError> {
        self.shared.closed.store(true, Ordering::Release);
        match self.send(|responder| Request::Close { responder }).await {
            Ok(()) | Err(LogError::Closed) => {
                self.join();
                *self.dir.lock() = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn send<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Request,
    ) -> Result<T, LogError> {
        let (responder, response) = oneshot::channel();
        self.sender()?
            .send(request(responder))
            .await
            .map_err(|_| self.unavailable())?;
        response.await.map_err(|_| self.unavailable())?
    }

    fn send_blocking<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Request,
    ) -> Result<T, LogError> {
        let (responder, response) = oneshot::channel();
        self.sender()?
            .blocking_send(request(responder))
            .map_err(|_| self.unavailable())?;
        response.blocking_recv().map_err(|_| self.unavailable())?
    }

    fn sender(&self) -> Result<&mpsc::Sender<Request>, LogError> {
        self.requests.as_ref().ok_or(LogError::Closed)
    }

    /// The reason why the writer accepts no requests.
    fn unavailable(&self) -> LogError {
        if self.shared.closed.load(Ordering::Acquire) {
            return LogError::Closed;
        }
        LogError::Failed("the log's writer has crashed".to_owned())
    }

    fn join(&self) {
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!("the log's writer has crashed");
        }
    }
}

/// `payload`, if a record may have its size.
fn checked(payload: Bytes) -> Result<Bytes, LogError> {
    match payload.len() {
        1..=MAX_PAYLOAD => Ok(payload),
        other => Err(LogError::Size(other)),
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Dropping the sender lets the writer finish the queued requests and end.
        self.requests = None;
        self.join();
    }
}
