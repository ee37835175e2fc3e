//! What an engine is opened from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use domain::cache::{CacheError, CountCache};
use domain::store::{PairStore, StoreError};
use domain::{Secret, Slot, TimeFrame, Window};
use telemetry::Metrics;

/// Opens the store and the cache of an engine, and knows its options.
#[async_trait]
pub trait Backends: Send + Sync {
    /// The options of the engine.
    fn engine_options(&self) -> EngineOptions;

    /// Opens the store. What it measures goes to `metrics`.
    async fn open_store(&self, metrics: &Arc<Metrics>) -> Result<Opened, StoreError>;

    /// Opens the cache.
    fn open_cache(&self) -> Result<Arc<dyn CountCache>, CacheError>;
}

/// An open store.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn PairStore>,
    /// The newest slot in the store, if the store knows it.
    pub newest: Option<Slot>,
}

/// The options of an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Window, resolution and how far ahead a pair may be.
    pub frame: TimeFrame,
    /// The most segments.
    pub max_segments: usize,
    /// The most pairs that wait for the store.
    pub queue_pairs: usize,
    /// How long a client waits for a store on the network before its pairs go to the spool.
    pub write_deadline: Duration,
    /// The key of the keyed hashes that replace user ids; user ids stay as they are without one.
    pub user_key: Option<Secret>,
    /// Where pairs wait while a store on the network is unavailable. Without it they are refused.
    pub spool: Option<SpoolSettings>,
    /// Whether the engine recounts every [`refresh_interval`](Self::refresh_interval) without being asked.
    pub refreshes: bool,
    /// The time from one recount to the next.
    pub refresh_interval: Duration,
    /// The most segments that are recounted at once, at least 1.
    pub refresh_parallelism: usize,
    /// The windows that are recounted, longest first; the full window is the first.
    pub refresh_windows: Vec<Window>,
    /// The age from which a cached count is no longer trusted.
    pub cache_ttl: Duration,
    /// How long a count is answered from process memory; zero if the cache is in process memory itself.
    pub memory_ttl: Duration,
    /// The most clients that follow events at once.
    pub max_event_clients: usize,
}

/// Where pairs wait while a store on the network is unavailable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// The directory.
    pub dir: PathBuf,
    /// The most bytes in it.
    pub max_bytes: u64,
}
