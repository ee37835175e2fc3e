//! Live counts in this process: what the store has recorded goes to a change feed, and a replica follows it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use backon::BackoffBuilder;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use crate::options::LiveParts;
use domain::store::{PairStore, StoreError};
use domain::{
    Batch, Clock, Count, FingerprintKey, Membership, Segment, TimeFrame, Timestamp, UserId, Window,
};
use index::Fingerprint;
use live::replica::{Replica, ReplicaOptions, Sources};
use live::writer::{FeedWriter, WriterParts};
use supervisor::{Supervisor, doubling};
use telemetry::Metrics;
use telemetry::metrics::set_total;

pub use live::writer::Delivery;

/// How long sent records stay in memory. A feed on this disk loses nothing that it took.
const KEEP_SENT: Duration = Duration::ZERO;
/// The maximum size of the records in memory, in bytes.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// How long a fresh count waits for the replica. It usually waits for one poll, 25 ms.
const FRESH_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// The writer to the feed, and the replica once it is open.
#[derive(Debug)]
pub struct Live {
    sources: Sources,
    frame: TimeFrame,
    dir: PathBuf,
    writer: FeedWriter,
    /// Read from the store, which may be unavailable at the start.
    key: OnceCell<FingerprintKey>,
    replica: OnceLock<Arc<Replica>>,
}

impl Live {
    /// Starts the writer, and opens the replica in the background.
    pub(crate) fn start(
        parts: LiveParts,
        frame: TimeFrame,
        store: &Arc<dyn PairStore>,
        clock: &Arc<dyn Clock>,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        let writer_parts = WriterParts {
            feed: Arc::clone(&parts.feed),
            owed: None,
            keep: KEEP_SENT,
            max_kept_bytes: MAX_KEPT_BYTES,
        };
        let live = Arc::new(Self {
            writer: FeedWriter::start(writer_parts, supervisor),
            sources: Sources {
                feed: parts.feed,
                store: Arc::clone(store),
                clock: Arc::clone(clock),
            },
            frame,
            dir: parts.dir,
            key: OnceCell::new(),
            replica: OnceLock::new(),
        });
        let (opening, owner) = (Arc::clone(&live), supervisor.clone());
        supervisor.keep("live counts", move || {
            let (live, supervisor) = (Arc::clone(&opening), owner.clone());
            async move {
                tokio::select! {
                    () = supervisor.stop().cancelled() => {}
                    () = live.open_replica(&supervisor) => {}
                }
            }
        });
        live
    }

    /// Shows the state of the writer and the replica in the metrics.
    pub(crate) fn observe(self: &Arc<Self>, metrics: &Metrics) {
        let observed = Arc::downgrade(self);
        metrics.before_render(move |metrics| {
            let Some(live) = observed.upgrade() else {
                return;
            };
            let writer = live.writer.status();
            metrics.live.owed_entries.set(writer.owed);
            let owed_for = writer.owed_for.unwrap_or_default();
            metrics.live.owed_age.set(owed_for.as_secs_f64());
            set_total(&metrics.live.resent_entries, writer.resent);
            set_total(&metrics.live.dropped_entries, writer.dropped);
            let Some(replica) = live.replica.get() else {
                return;
            };
            let status = replica.status();
            metrics.live.complete.set(u64::from(status.is_complete));
            metrics.live.pairs.set(status.pairs);
            metrics.live.bytes.set(status.bytes);
            set_total(&metrics.live.applied_entries, status.entries);
            set_total(&metrics.live.hydrated_pairs, status.hydrated_pairs);
            set_total(&metrics.live.repairs, status.repairs);
            set_total(&metrics.live.audits, status.audits);
            set_total(&metrics.live.differences, status.differences);
            set_total(&metrics.live.clamped_records, status.clamped);
            let now = live.sources.clock.now();
            let age = replica.as_of().map_or(f64::NAN, |as_of| {
                now.duration_since(as_of).as_secs_f64().max(0.0)
            });
            metrics.live.age.set(age);
        });
    }

    /// Opens and starts the replica as soon as the store returns the key of the fingerprints.
    async fn open_replica(&self, supervisor: &Supervisor) {
        let mut delays = doubling(FIRST_RETRY, LONGEST_RETRY).build();
        loop {
            match self.opened().await {
                Ok(replica) => {
                    replica.start(&self.sources, supervisor);
                    // The task runs once.
                    let _ = self.replica.set(replica);
                    return;
                }
                Err(error) => tracing::warn!(%error, "live counts can't start yet"),
            }
            sleep(delays.next().unwrap_or(LONGEST_RETRY)).await;
        }
    }

    async fn opened(&self) -> Result<Arc<Replica>, StoreError> {
        let options = ReplicaOptions::new(&self.dir, self.frame, self.key().await?);
        let opening = tokio::task::spawn_blocking(move || Replica::open(options)).await;
        let replica = opening.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        Ok(Arc::new(replica))
    }

    async fn key(&self) -> Result<FingerprintKey, StoreError> {
        let key = self
            .key
            .get_or_try_init(|| self.sources.store.fingerprint_key());
        key.await.copied()
    }

    /// The current time, as which pairs are received.
    pub(crate) fn now(&self) -> Timestamp {
        self.sources.clock.now()
    }

    /// Appends pairs that the store has recorded, received at `at`.
    pub(crate) async fn append(&self, batch: &Batch, at: Timestamp) -> Delivery {
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
            if self.writer.append(record).await == Delivery::Owed {
                delivery = Delivery::Owed;
            }
        }
        delivery
    }

    /// Erases a user from the replicas, after the store has.
    pub(crate) async fn erase(&self, user: &UserId<'_>) -> Result<(), StoreError> {
        let fingerprint = Fingerprint::of(user, self.key().await?);
        let record = live::erased(fingerprint, self.sources.clock.now());
        let appended = self.writer.append_now(record).await;
        appended.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// The count as of the end of the feed; `None` if the replica can't tell now.
    pub(crate) fn count(&self, segment: &Segment, window: Window) -> Option<Count> {
        self.replica.get()?.count(segment, window)
    }

    /// The same, after everything that was answered before this call is applied. Waits at most a second.
    pub(crate) async fn count_fresh(&self, segment: &Segment, window: Window) -> Option<Count> {
        let replica = self.replica.get()?;
        let now = self.sources.clock.now();
        timeout(FRESH_TIMEOUT, replica.wait_for(now)).await.ok()?;
        replica.count(segment, window)
    }

    /// Every segment with users, sorted by name; `None` if the replica can't tell now.
    pub(crate) fn list(&self, window: Window) -> Option<Vec<(Segment, Count)>> {
        self.replica.get()?.list(window)
    }

    /// The segments of a user; `None` if the replica can't tell now.
    pub(crate) fn memberships(&self, user: &UserId<'_>) -> Option<Vec<Membership>> {
        self.replica.get()?.memberships(user)
    }

    /// Finishes the work in progress and releases the directories.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        if let Some(replica) = self.replica.get() {
            replica.close().await?;
        }
        let closed = self.sources.feed.close().await;
        closed.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// The state as a sentence, for readiness reports; an error while counts are not live.
    pub(crate) fn describe(&self) -> Result<String, String> {
        let Some(replica) = self.replica.get() else {
            return Err("the replica is not open yet; counts come from the store".to_owned());
        };
        let status = replica.status();
        if !status.is_complete {
            let pairs = status.hydrated_pairs;
            return Err(format!(
                "the replica has read {pairs} pairs of the store and continues; counts of other segments come from the store"
            ));
        }
        match replica.as_of() {
            Some(_) => Ok(format!("{} pairs", status.pairs)),
            None => {
                Err("the replica is behind the change feed; counts come from the store".to_owned())
            }
        }
    }
}
