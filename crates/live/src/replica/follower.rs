//! Follows the feed: reads entries, applies them, and advances `as_of` at the end of the feed.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use tokio::time::{Instant, sleep};

use super::entries::{Collector, Unusual};
use super::recent::Recent;
use super::{Replica, Sources};
use domain::Timestamp;
use domain::feed::{Cursor, FeedError, Idle, Page, ReaderId};
use state::Reached;
use std::sync::atomic::Ordering;
use supervisor::doubling;
use wal::LogError;

/// Bytes of records that are read and applied at a time.
const PAGE_BYTES: usize = 1 << 20;
/// The pause at the end of the feed.
const POLL: Duration = Duration::from_millis(25);
/// The pause after many entries came: what arrives meanwhile shares one read, one write to the log and one fsync.
const GATHER: Duration = Duration::from_millis(50);
/// More entries than these in a pause are many: about a hundred requests a second.
const FEW: usize = 4;
/// How long `as_of` stays where it is after the feed may have lost its end: writers check every second what it has, and append
/// again what it lost.
const HOLD: Duration = Duration::from_secs(3);
/// The interval of removals of applied entries.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);
/// How long the feed keeps all entries after a loss.
const SETTLING: Duration = Duration::from_mins(1);
/// A process that was not seen for this long has ended. The entries for a replica that is stopped for longer are removed; then it
/// reads the pairs since from the store.
const IDLE: Idle = Idle {
    writers: Duration::from_hours(24),
    readers: Duration::from_mins(10),
};
/// The server of a feed in this process.
const LOCAL: u64 = 0;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Follows until it is dropped.
pub(super) async fn follow(replica: Arc<Replica>, sources: Sources) {
    let mut follower = Follower {
        replica: &replica,
        sources: &sources,
        durable: None,
        server: None,
        id: ReaderId::random(),
        recent: Recent::default(),
        lacks_recent: true,
        hold_until: Instant::now(),
        trimmed: None,
        moved: None,
        retries: doubling(FIRST_RETRY, LONGEST_RETRY).build(),
        is_failing: false,
    };
    let mut cursor = follower.first_position().await;
    // From now on the feed keeps what this replica has not read.
    follower.trim(&cursor).await;
    loop {
        cursor = follower.step(cursor).await;
    }
}

struct Follower<'a> {
    replica: &'a Replica,
    sources: &'a Sources,
    /// The last position without a loss before it, as it is on disk. It stays until lost entries are
    /// appended again and read from the store, so that a restart notices the loss again.
    durable: Option<Reached>,
    server: Option<u64>,
    id: ReaderId,
    recent: Recent,
    /// Whether `recent` lacks pairs that came before the next page.
    lacks_recent: bool,
    hold_until: Instant,
    trimmed: Option<Instant>,
    /// The position after the last loss.
    moved: Option<(Instant, Cursor)>,
    retries: backon::ExponentialBackoff,
    is_failing: bool,
}

impl Follower<'_> {
    /// The position to continue at: that of the state, or the start of the feed for a new replica, which then reads everything
    /// before it from the store. Not the end: after a loss, writers append old pairs again, and only earlier entries may tell
    /// that their users were erased.
    async fn first_position(&mut self) -> Cursor {
        let known = self.replica.state().following.lock().position;
        if let Some(reached) = known {
            self.durable = Some(reached);
            self.server = Some(reached.server);
            return reached.at;
        }
        loop {
            match self.oldest().await {
                Ok(at) => {
                    let reached = Reached { at, server: 0 };
                    let record = state::position(&reached);
                    match self.replica.durable.append(record).await {
                        Ok(_) => {
                            self.durable = Some(reached);
                            return at;
                        }
                        Err(error) => self.failed(&error).await,
                    }
                }
                Err(error) => self.failed(&error).await,
            }
        }
    }

    /// The position before the oldest entry of the feed.
    async fn oldest(&self) -> Result<Cursor, FeedError> {
        let feed = &self.sources.feed;
        let start = Cursor::start(feed.end().await?.feed);
        match feed.read(&start, 1).await {
            Ok(_) => Ok(start),
            Err(FeedError::Discontinued { oldest, .. }) => Ok(oldest),
            Err(error) => Err(error),
        }
    }

    /// Reads and applies a page. Returns the next position.
    async fn step(&mut self, cursor: Cursor) -> Cursor {
        let began = self.replica.elapsed();
        match self.sources.feed.read(&cursor, PAGE_BYTES).await {
            Ok(page) => self.page(cursor, page, began).await,
            Err(FeedError::Renewed(feed)) => {
                tracing::warn!("the change feed was emptied; recent pairs are read from the store");
                self.lost_entries();
                self.moved_to(Cursor::start(feed)).await
            }
            Err(FeedError::Discontinued { oldest, trimmed }) => {
                tracing::warn!(trimmed, "entries of the change feed are missing");
                self.hold();
                if trimmed {
                    self.lost_entries();
                }
                self.moved_to(oldest).await
            }
            Err(error) => {
                self.failed(&error).await;
                cursor
            }
        }
    }

    async fn page(&mut self, cursor: Cursor, page: Page, began: i64) -> Cursor {
        // A feed on another server may have lost entries just before a new replica came.
        if self.server.unwrap_or(LOCAL) != page.server {
            self.hold();
        }
        self.server = Some(page.server);
        if page.entries.iter().any(|entry| entry.skips) {
            self.lost_entries();
        }
        if std::mem::take(&mut self.lacks_recent) {
            self.recent.lacks_until(page.now);
        }
        let (record, unusual) = {
            let now = (page.now, self.replica.slot(page.now));
            let following = self.replica.state().following.lock();
            Collector::new(now, &following, &mut self.recent).record(&page.entries)
        };
        if let Some(reason) = &unusual.foreign {
            tracing::error!(
                reason,
                "the change feed has an entry that headcount did not write"
            );
            self.lost_entries();
        }
        if unusual.drops {
            // Until the later pairs of the segment are added again, its count is too low.
            self.replica.held.store(true, Ordering::Release);
        }
        let is_held = Instant::now() < self.hold_until
            || self.replica.waits_for_repair()
            || unusual.late_erasure.is_some();
        let reached = match self.durable {
            Some(durable) if is_held => durable,
            _ => Reached {
                at: page.next,
                server: page.server,
            },
        };
        let is_new = self.durable.is_none_or(|durable| durable.at != reached.at);
        if (!page.entries.is_empty() || is_new)
            && let Err(error) = self.apply(record, &reached).await
        {
            self.failed(&error).await;
            return cursor;
        }
        self.recovered();
        self.note(page.entries.len(), &unusual);
        let Some(as_of) = page.as_of else {
            return page.next;
        };
        self.replica.reached(as_of, began, is_held);
        self.trim(&page.next).await;
        let is_busy = page.entries.len() > FEW;
        sleep(if is_busy { GATHER } else { POLL }).await;
        page.next
    }

    async fn apply(&mut self, mut record: Vec<u8>, reached: &Reached) -> Result<(), LogError> {
        state::join(&mut record, &state::position(reached));
        self.replica.apply(record).await?;
        self.durable = Some(*reached);
        Ok(())
    }

    /// Notes what was applied.
    fn note(&self, entries: usize, unusual: &Unusual) {
        // Not before: the erasure would also remove what the repair adds.
        if let Some(at) = unusual.late_erasure {
            let at = Timestamp::from_millisecond(at).unwrap_or_default();
            tracing::info!(%at, "an erasure may have removed pairs that came since; they are read from the store");
            self.replica.request_repair(self.replica.slot(at));
        }
        self.replica.request_audit(&unusual.differing);
        let progress = &self.replica.progress;
        progress
            .clamped
            .fetch_add(unusual.clamped, Ordering::Relaxed);
        if let Some(furthest) = unusual.furthest {
            self.replica.note_furthest(furthest);
        }
        progress
            .entries
            .fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// Continues at another position. The feed must not remove what follows it because another replica has it.
    async fn moved_to(&mut self, position: Cursor) -> Cursor {
        self.trimmed = None;
        self.moved = Some((Instant::now(), position));
        self.trim(&position).await;
        position
    }

    fn hold(&mut self) {
        self.hold_until = Instant::now() + HOLD;
    }

    /// Entries are lost that no writer may have any more.
    fn lost_entries(&mut self) {
        self.hold();
        self.lacks_recent = true;
        self.replica.request_repair(self.replica.state().newest());
    }

    /// Removes what is applied, and durable, from the feed.
    async fn trim(&mut self, position: &Cursor) {
        let trimmed = self.trimmed;
        if trimmed.is_some_and(|trimmed| trimmed.elapsed() < TRIM_INTERVAL) {
            return;
        }
        self.trimmed = Some(Instant::now());
        // An emptied feed does not know the other replicas yet, which may need its first entries.
        let moved = self.moved.filter(|(at, _)| at.elapsed() < SETTLING);
        let position = moved.map_or(*position, |(_, position)| position);
        if let Err(error) = self.sources.feed.trim(self.id, &position, IDLE).await {
            tracing::debug!(%error, "the change feed can't be trimmed");
        }
        if let Ok(size) = self.sources.feed.size().await {
            *self.replica.feed_size.lock() = size;
        }
    }

    async fn failed(&mut self, error: &(dyn std::fmt::Display + Sync)) {
        if !self.is_failing {
            tracing::warn!(%error, "the change feed can't be followed");
        }
        self.is_failing = true;
        sleep(self.retries.next().unwrap_or(LONGEST_RETRY)).await;
    }

    fn recovered(&mut self) {
        if self.is_failing {
            tracing::info!("the change feed is followed again");
            self.is_failing = false;
            self.retries = doubling(FIRST_RETRY, LONGEST_RETRY).build();
        }
    }
}
