//! One running instance, and how it is started, ended and killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use headcount::app::Headcount;
use headcount::config::Settings;
use headcount::domain::Slot;
use headcount::store::Opened;
use headcount::telemetry::Metrics;

use super::clock::{SteadyTestClock, Time};
use super::steps::Setup;
use super::wire::{Held, Wire};
use super::wired_cache::{Shelf, WiredCache};
use super::wired_store::{Stock, WiredStore};

/// What all instances share.
#[derive(Debug, Clone)]
pub struct Shared {
    pub setup: Setup,
    pub time: Arc<Time>,
    pub stock: Stock,
    pub shelf: Arc<Shelf>,
    pub held: Held,
}

#[derive(Debug)]
pub struct Instance {
    pub headcount: Arc<Headcount>,
    pub clock: Arc<SteadyTestClock>,
    pub store: Arc<Wire>,
    pub cache: Arc<Wire>,
    pub spool: PathBuf,
}

/// Settings of every instance; `spool` only where there is one.
pub fn settings(setup: &Setup, spool: &Path) -> Settings {
    let mut given = vec![
        ("window", "10m"),
        ("resolution", "1m"),
        ("max_ahead", "5m"),
        ("cache_ttl", "2m"),
        ("refresh_mode", "off"),
        ("refresh_windows", "3m"),
        ("refresh_parallelism", "2"),
    ];
    let spool = match setup.has_spool {
        true => spool.to_str().unwrap(),
        false => "off",
    };
    given.push(("spool_dir", spool));
    if setup.has_memory {
        // Only the kind matters: who is asked is given beside the settings.
        given.extend([("cache", "redis"), ("redis_url", "redis://127.0.0.1:1")]);
    }
    Settings::with(given).unwrap()
}

impl Instance {
    pub async fn start(shared: &Shared, spool: PathBuf) -> Self {
        let clock = Arc::new(SteadyTestClock::new(&shared.time));
        let (store, cache) = (Wire::new(&shared.held), Wire::new(&shared.held));
        let is_live = shared.setup.is_live;
        let opened = Opened {
            store: Arc::new(WiredStore::new(&shared.stock, &store, is_live)),
            newest: newest(shared),
        };
        let cached = Arc::new(WiredCache::new(&shared.shelf, &cache));
        let settings = settings(&shared.setup, &spool);
        let headcount = Headcount::open_over(
            &settings,
            opened,
            cached,
            clock.clone(),
            Arc::<Metrics>::default(),
        );
        Self {
            headcount: Arc::new(headcount.await.unwrap()),
            clock,
            store,
            cache,
            spool,
        }
    }

    /// Ends it as a supervisor does: nothing that it began is held up any more.
    pub async fn end(&self) {
        self.store.mend();
        self.cache.mend();
        self.headcount.shut_down().await.unwrap();
    }

    /// Ends it as `kill -9` does: nothing of it reaches anybody any more. Its files are as they are now.
    pub fn kill(&self, left: &Path) {
        self.store.die();
        self.cache.die();
        if self.spool.exists() {
            copy(&self.spool, left);
        }
    }
}

/// The newest slot in the store. The embedded one tells it; another is asked by clocks that agree.
fn newest(shared: &Shared) -> Option<Slot> {
    Some(shared.stock.lock().newest_slot())
}

/// Copies the files of a directory, but no lock.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "lock" && entry.file_type().unwrap().is_file() {
            // A file that went in between is one that was not needed any more.
            let _ = std::fs::copy(entry.path(), to.join(entry.file_name()));
        }
    }
}
