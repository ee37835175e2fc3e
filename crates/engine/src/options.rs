//! The options of an engine, and the trait that opens its store and cache.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use domain::cache::{CacheError, CountCache};
use domain::feed::ChangeFeed;
use domain::published::PublishedCounts;
use domain::store::{PairStore, StoreError};
use domain::{Floor, Secret, Slot, TimeFrame, Window};
use live::writer::OwedLog;
use telemetry::Metrics;

use crate::live_process::LiveProcess;

/// Provides the store, the cache and the options of an engine.
#[async_trait]
pub trait Backends: Send + Sync {
    /// The options of the engine.
    fn engine_options(&self) -> EngineOptions;

    /// Opens the store, which reports its measurements to `metrics`.
    async fn open_store(&self, metrics: &Arc<Metrics>) -> Result<Opened, StoreError>;

    /// Opens the cache.
    fn open_cache(&self) -> Result<Arc<dyn CountCache>, CacheError>;
}

/// An open store.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn PairStore>,
    /// The slot as of which the store counts at least; `None` if it counts as of any.
    pub head: Option<Slot>,
    /// What live counts need; `None` without them, and for a store in this process.
    pub live: Option<LiveParts>,
}

/// What live counts need in this process.
#[derive(Debug)]
pub enum LiveParts {
    /// It is the only one: the change feed and the replica are on its disk.
    Here {
        /// The feed of recorded pairs.
        feed: Arc<dyn ChangeFeed>,
        /// The directory of the replica.
        dir: PathBuf,
    },
    /// It is one of any number of services: it appends to a shared feed, and reads what a live process publishes.
    Service {
        /// The feed of recorded pairs.
        feed: Arc<dyn ChangeFeed>,
        /// The published counts.
        published: Arc<dyn PublishedCounts>,
        /// Where entries wait on disk while the feed is unavailable; without it they are only in memory.
        owed: Option<OwedLog>,
        /// Asks the live process for what is not published.
        process: Arc<dyn LiveProcess>,
    },
    /// It is a live process: it has a replica, and publishes its counts unless another one does.
    Process {
        /// The feed of recorded pairs.
        feed: Arc<dyn ChangeFeed>,
        /// The directory of the replica.
        dir: PathBuf,
        /// The published counts.
        published: Arc<dyn PublishedCounts>,
        /// The URL at which services reach this process; empty if they can't.
        address: String,
    },
}

/// The options of an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The window, the resolution, and how far in the future a pair may be.
    pub frame: TimeFrame,
    /// The maximum number of segments.
    pub max_segments: usize,
    /// The maximum number of pairs that wait for the store.
    pub queue_pairs: usize,
    /// The timeout of a write to a store on the network. After it the pairs go to the spool.
    pub write_deadline: Duration,
    /// The key of the keyed hashes that replace user ids. Without a key user ids are stored unchanged.
    pub user_key: Option<Secret>,
    /// Where pairs wait while a store on the network is unavailable. Without a spool they are refused.
    pub spool: Option<SpoolSettings>,
    /// Whether the engine recounts by itself, every [`refresh_interval`](Self::refresh_interval).
    pub refreshes: bool,
    /// The interval between recounts.
    pub refresh_interval: Duration,
    /// The maximum number of concurrent counts in the store, at least 1.
    pub refresh_parallelism: usize,
    /// The windows that are recounted, longest first. The first is the full window.
    pub refresh_windows: Vec<Window>,
    /// The age from which a cached count is too old to be served as current.
    pub cache_ttl: Duration,
    /// How long a count is served from process memory. Zero if the cache itself is in process memory.
    pub memory_ttl: Duration,
    /// The maximum number of concurrent event clients.
    pub max_event_clients: usize,
    /// The privacy floor.
    pub min_users: Floor,
}

/// Where pairs wait while a store on the network is unavailable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// The directory.
    pub dir: PathBuf,
    /// The maximum size of its files in bytes.
    pub max_bytes: u64,
}
