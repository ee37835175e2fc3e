//! The log as its owner sees it.

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

/// An open log. See the [module](super) for what it promises.
#[derive(Debug)]
pub struct Log {
    // `None` only while it is dropped.
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
    /// The bytes of all its files.
    pub bytes: u64,
    /// How many files there are.
    pub files: u64,
    /// How many appends wait for the writer.
    pub queued: u64,
}

impl Log {
    /// Opens the log in `dir`: calls `apply` with every record that is there, then starts the writer, which
    /// calls it with every record that is appended.
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

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Appends a record. When it returns `Ok`, the record is durable and applied. Where the future is
    /// dropped, the record may have been appended or not.
    ///
    /// After [`LogError::Full`] and [`LogError::Io`] the record is not in the log, after
    /// [`LogError::Failed`] it may be.
    pub async fn append(&self, payload: impl Into<Bytes>) -> Result<Position, LogError> {
        let payload = payload.into();
        if payload.is_empty() || payload.len() > MAX_PAYLOAD {
            return Err(LogError::Size(payload.len()));
        }
        self.ask(|answer| Request::Append { payload, answer }).await
    }

    /// Ends the present file and goes on with a new one, unless the present one is empty. Returns the number
    /// of the file that is written from here on. Every record in a file before that one has been applied.
    pub async fn rotate(&self) -> Result<u64, LogError> {
        self.ask(|answer| Request::Rotate { answer }).await
    }

    /// The same as [`rotate`](Self::rotate), for a thread that is not part of an async runtime.
    pub fn rotate_blocking(&self) -> Result<u64, LogError> {
        let (answer, answered) = oneshot::channel();
        self.sender()?
            .blocking_send(Request::Rotate { answer })
            .map_err(|_| self.gone())?;
        answered.blocking_recv().map_err(|_| self.gone())?
    }

    /// Removes the files before `number`, except the one that is written. Returns how many bytes went.
    /// It blocks for as long as the file system needs.
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

    /// The number of the newest file: the one that is written.
    pub fn newest_file(&self) -> u64 {
        let sizes = self.shared.sizes.lock();
        sizes.keys().next_back().copied().unwrap_or(0)
    }

    /// The bytes of the files from `number` on.
    pub fn bytes_from(&self, number: u64) -> u64 {
        self.shared
            .sizes
            .lock()
            .range(number..)
            .map(|(_, size)| size)
            .sum()
    }

    /// The state of the log.
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

    /// Whether records can be appended: the error that an append would meet for good.
    pub fn check(&self) -> Result<(), LogError> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(LogError::Closed);
        }
        match self.shared.failure.get() {
            Some(reason) => Err(LogError::Failed(reason.clone())),
            None if self.sender()?.is_closed() => Err(self.gone()),
            None => Ok(()),
        }
    }

    /// Writes what waits, seals the file, stops the writer and gives up its share of the directory's lock.
    /// Appends after this get [`LogError::Closed`]. Closing again does nothing.
    pub async fn close(&self) -> Result<(), LogError> {
        self.shared.closed.store(true, Ordering::Release);
        match self.ask(|answer| Request::Close { answer }).await {
            Ok(()) | Err(LogError::Closed) => {
                self.join();
                *self.dir.lock() = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Request,
    ) -> Result<T, LogError> {
        let (answer, answered) = oneshot::channel();
        self.sender()?
            .send(request(answer))
            .await
            .map_err(|_| self.gone())?;
        answered.await.map_err(|_| self.gone())?
    }

    fn sender(&self) -> Result<&mpsc::Sender<Request>, LogError> {
        self.requests.as_ref().ok_or(LogError::Closed)
    }

    /// Why the writer takes no requests.
    fn gone(&self) -> LogError {
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

impl Drop for Log {
    fn drop(&mut self) {
        // Nobody can ask any more: the writer finishes what waits and ends.
        self.requests = None;
        self.join();
    }
}
