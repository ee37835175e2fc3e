//! Live counts over a store on the network: what the store has recorded goes to a change feed, and replicas follow it. The
//! replica is in this process, or in another one that publishes its counts.

mod host;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use backon::BackoffBuilder;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use self::host::{Host, Publishing};
use crate::live_process::{At, Comparison, LiveProcess};
use crate::options::LiveParts;
use domain::feed::ChangeFeed;
use domain::store::{PairStore, StoreError};
use domain::{
    Batch, Clock, Count, FingerprintKey, Membership, Segment, TimeFrame, Timestamp, UserId, Window,
};
use index::Fingerprint;
use live::publisher::Role;
use live::replica::Sources;
use live::view::View;
use live::writer::{FeedWriter, OwedLog, WriterParts};
use supervisor::{Supervisor, doubling};
use telemetry::Metrics;
use telemetry::metrics::set_total;

pub use live::writer::Delivery;

/// How long sent records stay in memory, to be sent again if the server of the feed loses them: longer than the promotion of a
/// replica takes.
const KEEP_SENT: Duration = Duration::from_mins(2);
/// The maximum size of the records in memory, in bytes.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// How long a fresh count waits until the counts include everything. It usually waits for one poll and one tick.
const FRESH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a comparison waits for the first tick that this process reads.
const FIRST_TICK: Duration = Duration::from_secs(1);
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
                let view = View::start(published, supervisor);
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
        supervisor.keep("live counts", move || {
            let (live, supervisor) = (Arc::clone(&opening), owner.clone());
            async move {
                tokio::select! {
                    () = supervisor.stop().cancelled() => {}
                    () = live.open(&supervisor) => {}
                }
            }
        });
        live
    }

    /// Reads the key, and opens the replica if it is in this process.
    async fn open(&self, supervisor: &Supervisor) {
        let mut delays = doubling(FIRST_RETRY, LONGEST_RETRY).build();
        while let Err(error) = self.try_open(supervisor).await {
            tracing::warn!(%error, "live counts can't start yet");
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

    /// Erases a user from the replicas, with all pairs that were received until `at`, after the store has.
    pub(crate) async fn erase(&self, user: &UserId<'_>, at: Timestamp) -> Result<(), StoreError> {
        let Some(writer) = &self.writer else {
            return Err(StoreError::Unsupported("a live process erases nobody"));
        };
        let fingerprint = Fingerprint::of(user, self.key().await?);
        let record = live::erased(fingerprint, at);
        let appended = writer.append_now(record).await;
        appended.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// The count as of the newest instant that this process knows; `None` if it can't tell now.
    pub(crate) fn count(&self, segment: &Segment, window: Window) -> Option<Count> {
        match &self.side {
            Side::Host(host) => host.count(segment, window),
            Side::Reader { view, .. } => view.count(segment, window),
        }
    }

    /// The count from the live process; `None` if it is in this one, or can't tell.
    pub(crate) async fn ask_count(&self, segment: &Segment, window: Window) -> Option<Count> {
        let (process, at) = self.process(segment)?;
        process.count(&at, segment, window).await
    }

    /// The count as it was last published, if it was, however long ago.
    pub(crate) fn last_known(&self, segment: &Segment, window: Window) -> Option<Count> {
        match &self.side {
            Side::Host(_) => None,
            Side::Reader { view, .. } => view.last_known(segment, window),
        }
    }

    /// A count that includes everything that was answered before this call. Waits at most two seconds.
    pub(crate) async fn count_fresh(&self, segment: &Segment, window: Window) -> Option<Count> {
        let waiting = async {
            let now = self.sources.feed_now().await.ok()?;
            match &self.side {
                Side::Host(host) => host.replica()?.wait_for(now).await,
                Side::Reader { view, .. } => view.wait_for(now).await,
            }
            Some(())
        };
        timeout(FRESH_TIMEOUT, waiting).await.ok()??;
        match self.count(segment, window) {
            Some(count) => Some(count),
            None => self.ask_count(segment, window).await,
        }
    }

    /// Every segment with users, sorted by name; `None` if that is not known now.
    pub(crate) async fn list(&self, window: Window) -> Option<Vec<(Segment, Count)>> {
        match &self.side {
            Side::Host(host) => host.list(window),
            Side::Reader { view, process } => {
                if let Some(list) = view.list(window) {
                    return Some(list);
                }
                let tick = view.tick().filter(|tick| tick.complete)?;
                let at = self.at(tick.address)?;
                process.list(&at, window).await
            }
        }
    }

    /// The segments of a user; `None` if that is not known now.
    pub(crate) async fn memberships(&self, user: &UserId<'_>) -> Option<Vec<Membership>> {
        match &self.side {
            Side::Host(host) => host.memberships(user),
            Side::Reader { view, process } => {
                let tick = view.tick().filter(|tick| tick.complete)?;
                let at = self.at(tick.address)?;
                process.memberships(&at, user).await
            }
        }
    }

    /// Compares all segments, or one, with the store's own counts, and reads those that differ again. `None` if counts are not
    /// live.
    pub(crate) async fn compare(&self, only: Option<&Segment>) -> Option<Comparison> {
        let host = match &self.side {
            Side::Host(host) => host,
            Side::Reader { view, process } => {
                // A command that has just started knows no tick yet.
                let first = Timestamp::UNIX_EPOCH.checked_add(Duration::from_micros(1));
                let waiting = view.wait_for(first.unwrap_or(Timestamp::MAX));
                timeout(FIRST_TICK, waiting).await.ok()?;
                self.key().await.ok()?;
                let at = self.at(view.tick()?.address)?;
                return process.compare(&at, only).await;
            }
        };
        let Ok(_comparing) = self.comparing.try_lock() else {
            return Some(Comparison::UnderWay);
        };
        let began = tokio::time::Instant::now();
        let audited = host.audit(&self.sources, only).await?;
        Some(Comparison::Done {
            compared: audited.compared,
            failed: audited.failed,
            differences: audited.differences,
            took: began.elapsed(),
        })
    }

    /// The live process, if it can tell about `segment` and is another one.
    fn process(&self, segment: &Segment) -> Option<(&dyn LiveProcess, At)> {
        let Side::Reader { view, process } = &self.side else {
            return None;
        };
        let tick = view.tick()?;
        let is_counted = tick.complete || view.publishes(segment);
        let at = is_counted.then(|| self.at(tick.address)).flatten()?;
        Some((&**process, at))
    }

    fn at(&self, address: String) -> Option<At> {
        let token = self.token()?;
        (!address.is_empty()).then_some(At { address, token })
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

    /// The state as a sentence, for readiness reports; an error while counts are not live.
    pub(crate) fn describe(&self) -> Result<String, String> {
        let state = match &self.side {
            Side::Host(host) => host.describe()?,
            Side::Reader { view, .. } => described(view)?,
        };
        let owed = self.writer.as_ref().map(FeedWriter::status);
        match owed.and_then(|status| Some((status.owed, status.owed_for?))) {
            Some((entries, time)) => Err(format!(
                "{entries} entries wait on this instance for the change feed, for {} s; counts lack their pairs",
                time.as_secs()
            )),
            None => Ok(state),
        }
    }

    /// Shows the state in the metrics.
    pub(crate) fn observe(self: &Arc<Self>, metrics: &Metrics) {
        let observed = Arc::downgrade(self);
        metrics.before_render(move |metrics| {
            if let Some(live) = observed.upgrade() {
                live.show(metrics);
            }
        });
    }

    fn show(&self, metrics: &Metrics) {
        if let Some(writer) = &self.writer {
            let writer = writer.status();
            metrics.live.owed_entries.set(writer.owed);
            let owed_for = writer.owed_for.unwrap_or_default();
            metrics.live.owed_age.set(owed_for.as_secs_f64());
            set_total(&metrics.live.resent_entries, writer.resent);
            set_total(&metrics.live.dropped_entries, writer.dropped);
        }
        let as_of = match &self.side {
            Side::Host(host) => host.replica().and_then(|replica| replica.as_of()),
            Side::Reader { view, .. } => view.tick().map(|tick| tick.as_of),
        };
        let now = self.sources.clock.now();
        let age = as_of.map(|as_of| now.duration_since(as_of).as_secs_f64().max(0.0));
        metrics.live.age.set(age.unwrap_or(f64::NAN));
        let Side::Host(host) = &self.side else { return };
        let publishes = host.role() == Some(Role::Publisher);
        metrics.live.publishes.set(u64::from(publishes));
        let Some(replica) = host.replica() else {
            return;
        };
        let status = replica.status();
        metrics.live.complete.set(u64::from(status.is_complete));
        metrics.live.pairs.set(status.pairs);
        metrics.live.bytes.set(status.bytes);
        metrics.live.feed_entries.set(status.feed.entries);
        metrics.live.feed_bytes.set(status.feed.bytes);
        set_total(&metrics.live.applied_entries, status.entries);
        set_total(&metrics.live.hydrated_pairs, status.hydrated_pairs);
        set_total(&metrics.live.repairs, status.repairs);
        set_total(&metrics.live.audits, status.audits);
        set_total(&metrics.live.differences, status.differences);
        set_total(&metrics.live.clamped_records, status.clamped);
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

fn described(view: &View) -> Result<String, String> {
    match view.tick() {
        None => Err(
            "no live process publishes counts; they come from the cache and the store".to_owned(),
        ),
        Some(tick) if !tick.complete => Err(format!(
            "the live process reads the store; counts of {} segments are live, others come from the cache and the store",
            tick.segments
        )),
        Some(tick) => Ok(format!("{} segments", tick.segments)),
    }
}
