//! Live counts over a store on the network: what the store has recorded goes to a change feed, and replicas follow it. The
//! replica is in this process, or in another one that publishes its counts.

mod host;
mod reads;
mod status;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use backon::BackoffBuilder;
use tokio::sync::{OnceCell, watch};
use tokio::time::sleep;

use self::host::{Host, Publishing};
use crate::erasing::Target;
use crate::live_process::LiveProcess;
use crate::options::LiveParts;
use domain::feed::ChangeFeed;
use domain::store::{PairStore, StoreError};
use domain::{Batch, Clock, FingerprintKey, OwnWindows, TimeFrame, Timestamp, Window};
use index::Fingerprint;
use live::Subject;
use live::replica::Sources;
use live::view::View;
use live::writer::{FeedWriter, OwedLog, WriterParts};
use supervisor::{Supervisor, doubling};

pub use live::writer::Delivery;

/// How long sent records stay in memory, to be sent again if the server of the feed loses them: longer than the promotion of a
/// replica takes.
const KEEP_SENT: Duration = Duration::from_mins(2);
/// The maximum size of the records in memory, in bytes.
const MAX_KEPT_BYTES: usize = 64 << 20;
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Live counts, as one process has them.
#[derive(Debug)]
pub struct Live {
    sources: Sources,
    /// `None` in a process that records no pairs.
    writer: Option<FeedWriter>,
    /// Read from the store, which may be unavailable at the start.
    key: OnceCell<FingerprintKey>,
    side: Side,
    /// Held by a comparison of all segments with the store.
    comparing: tokio::sync::Mutex<()>,
    /// How long the counts may be silent before the store recounts everything again.
    recount_after: Duration,
}

/// Where the replica is.
#[derive(Debug)]
enum Side {
    Host(Host),
    Reader {
        view: Arc<View>,
        process: Arc<dyn LiveProcess>,
    },
}

/// What a process has to do at each `refresh_interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Record the live counts as trend points.
    RecordTrend,
    /// Nothing, because another process does it.
    Nothing,
    /// Recount by the store, because counts are not live.
    Recount,
}

/// The parts of an engine that live counts use.
pub(crate) struct Surroundings<'a> {
    pub(crate) frame: TimeFrame,
    pub(crate) windows: &'a [Window],
    pub(crate) own_windows: watch::Receiver<OwnWindows>,
    pub(crate) cache_ttl: Duration,
    pub(crate) store: &'a Arc<dyn PairStore>,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) supervisor: &'a Supervisor,
}

impl Live {
    /// Starts the writer, and the replica or the view in the background.
    pub(crate) fn start(parts: LiveParts, around: &Surroundings<'_>) -> Arc<Self> {
        let supervisor = around.supervisor;
        let host = |dir, publishing| {
            Side::Host(Host {
                dir,
                frame: around.frame,
                publishing,
                opened: OnceLock::new(),
            })
        };
        let (feed, writer, side) = match parts {
            LiveParts::Here { feed, dir } => {
                // A feed on this disk loses nothing that it took.
                let writer = writer(&feed, None, Duration::ZERO, supervisor);
                (feed, Some(writer), host(dir, None))
            }
            LiveParts::Service {
                feed,
                published,
                owed,
                process,
            } => {
                let writer = writer(&feed, owed, KEEP_SENT, supervisor);
                let view = View::start(published, around.frame.full_window(), supervisor);
                (feed, Some(writer), Side::Reader { view, process })
            }
            LiveParts::Process {
                feed,
                dir,
                published,
                address,
            } => {
                let publishing = Publishing {
                    published,
                    windows: around.windows.to_vec(),
                    own_windows: around.own_windows.clone(),
                    address,
                };
                (feed, None, host(dir, Some(publishing)))
            }
        };
        let live = Arc::new(Self {
            writer,
            sources: Sources {
                feed,
                store: Arc::clone(around.store),
                clock: Arc::clone(around.clock),
            },
            key: OnceCell::new(),
            side,
            comparing: tokio::sync::Mutex::default(),
            recount_after: around.cache_ttl,
        });
        let (opening, owner) = (Arc::clone(&live), supervisor.clone());
        supervisor.keep_until_stop("live counts", move || {
            let (live, supervisor) = (Arc::clone(&opening), owner.clone());
            async move { live.open(&supervisor).await }
        });
        live
    }

    /// Reads the key, and opens the replica if it is in this process.
    async fn open(&self, supervisor: &Supervisor) {
        let mut delays = doubling(FIRST_RETRY, LONGEST_RETRY).build();
        let mut is_known = false;
        while let Err(error) = self.try_open(supervisor).await {
            match std::mem::replace(&mut is_known, true) {
                false => tracing::warn!(%error, "live counts can't start yet; retrying"),
                true => tracing::debug!(%error, "live counts still can't start"),
            }
            sleep(delays.next().unwrap_or(LONGEST_RETRY)).await;
        }
    }

    async fn try_open(&self, supervisor: &Supervisor) -> Result<(), StoreError> {
        let key = self.key().await?;
        match &self.side {
            Side::Host(host) => host.open(key, &self.sources, supervisor).await,
            Side::Reader { .. } => Ok(()),
        }
    }

    async fn key(&self) -> Result<FingerprintKey, StoreError> {
        let key = self
            .key
            .get_or_try_init(|| self.sources.store.fingerprint_key());
        key.await.copied()
    }

    /// The token with which instances ask the live process; `None` while the key is unknown.
    pub(crate) fn token(&self) -> Option<String> {
        let mut input = b"headcount live process\0".to_vec();
        input.extend_from_slice(&self.key.get()?.bytes());
        Some(base16ct::lower::encode_string(
            digest(&SHA256, &input).as_ref(),
        ))
    }

    /// The current time, as which pairs are received.
    pub(crate) fn now(&self) -> Timestamp {
        self.sources.clock.now()
    }

    /// Appends pairs that the store has recorded, received at `at`.
    pub(crate) async fn append(&self, batch: &Batch, at: Timestamp) -> Delivery {
        let Some(writer) = &self.writer else {
            return Delivery::Owed;
        };
        let key = match self.key().await {
            Ok(key) => key,
            Err(error) => {
                // The replica starts with the same key, and then reads these pairs from the store.
                tracing::debug!(%error, "pairs are recorded before the key of the fingerprints is known");
                return Delivery::Owed;
            }
        };
        let mut delivery = Delivery::InFeed;
        for record in live::received(batch, key, at) {
            if writer.append(record).await == Delivery::Owed {
                delivery = Delivery::Owed;
            }
        }
        delivery
    }

    /// Erases from the replicas all pairs of `target` that were received until `at`. The store has erased them before.
    pub(crate) async fn erase(&self, target: &Target<'_>, at: Timestamp) -> Result<(), StoreError> {
        let Some(writer) = &self.writer else {
            return Err(StoreError::Unsupported("a live process erases nobody"));
        };
        let key = self.key().await?;
        let subject = match *target {
            Target::User(user) => Subject::User(Fingerprint::of(user, key)),
            Target::Segment { segment, .. } => Subject::Segment((*segment).clone()),
            Target::Pair(segment, user) => {
                Subject::Pair(segment.clone(), Fingerprint::of(user, key))
            }
        };
        let record = live::erased(&subject, at);
        let appended = writer.append_now(record).await;
        appended.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// What this process has to do at each `refresh_interval`.
    pub(crate) fn duty(&self) -> Duty {
        match &self.side {
            Side::Host(host) => host.duty(),
            Side::Reader { view, .. } if view.silent_for() < self.recount_after => Duty::Nothing,
            Side::Reader { .. } => Duty::Recount,
        }
    }

    /// Finishes the work in progress and releases the directories.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        if let Side::Host(host) = &self.side
            && let Some(replica) = host.replica()
        {
            replica.close().await?;
        }
        let closed = self.sources.feed.close().await;
        closed.map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}

fn writer(
    feed: &Arc<dyn ChangeFeed>,
    owed: Option<OwedLog>,
    keep: Duration,
    supervisor: &Supervisor,
) -> FeedWriter {
    let parts = WriterParts {
        feed: Arc::clone(feed),
        owed,
        keep,
        max_kept_bytes: MAX_KEPT_BYTES,
    };
    FeedWriter::start(parts, supervisor)
}
