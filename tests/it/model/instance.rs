//! One running instance: start, shutdown and kill.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::cache::CountCache;
use engine::Headcount;
use engine::Opened;
use headcount::config::Settings;
use headcount::wiring;
use stores::redis::cache::{RedisCache, RedisCacheOptions};
use telemetry::Metrics;
use tokio::time::Instant;

use super::clock::{SteadyTestClock, Time};
use super::connection::{Connection, Proxied};
use super::live_site::LiveSite;
use super::servers::Servers;
use super::steps::Setup;
use super::wire::{Held, Wire};
use super::wired_cache::{CacheBackend, WiredCache};
use super::wired_store::{StoreBackend, WiredStore};

/// The state that all instances share.
#[derive(Debug, Clone)]
pub struct Shared {
    pub setup: Setup,
    pub time: Arc<Time>,
    pub held: Held,
    pub site: Site,
}

/// The location of the store and the cache.
#[derive(Debug, Clone)]
pub enum Site {
    /// In this process, behind wires.
    Local {
        store_backend: Arc<StoreBackend>,
        cache_backend: Arc<CacheBackend>,
        /// With live processes.
        live: Option<LiveSite>,
    },
    /// Servers, behind proxies.
    Remote(Arc<Servers>),
}

#[derive(Debug)]
pub struct Instance {
    pub headcount: Arc<Headcount>,
    pub clock: Arc<SteadyTestClock>,
    pub store: Connection,
    pub cache: Connection,
    /// To the feed and to the published counts, with live processes.
    pub feed: Option<Connection>,
    pub board: Option<Connection>,
    /// The folder of its spool, or of its replica.
    pub spool: PathBuf,
    pub started: Instant,
}

/// The settings of every instance, with those of a site. `spool` is used only with a spool.
pub fn settings(setup: &Setup, spool: &Path, of_site: &[(&'static str, String)]) -> Settings {
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
    // Only the kind matters, since the cache is passed separately. The cache in memory needs no additional memory.
    given.extend([("cache", "redis"), ("redis_url", "redis://127.0.0.1:1")]);
    given.push(("memory_ttl", if setup.has_memory { "1s" } else { "0s" }));
    given.extend(of_site.iter().map(|(name, value)| (*name, value.as_str())));
    Settings::with(given).unwrap()
}

/// The cache of the settings, without a limit on clock skew: the clocks of the test are right, and that of Redis is
/// wrong.
fn cache_without_skew_limit(settings: &Settings) -> Arc<dyn CountCache> {
    let redis = settings.cache.redis.clone().unwrap();
    let window = Duration::from_secs(settings.frame.full_window().seconds());
    let options = RedisCacheOptions {
        max_ahead: Duration::MAX,
        ..RedisCacheOptions::new(redis.server, redis.prefix, settings.cache.ttl, window)
    };
    Arc::new(RedisCache::open(options).unwrap())
}

impl Instance {
    pub async fn start(shared: &Shared, spool: PathBuf) -> Self {
        Self::start_as(shared, spool, None).await
    }

    /// Starts a live process with this address, or a service.
    pub async fn start_as(shared: &Shared, spool: PathBuf, process: Option<&str>) -> Self {
        let (mut feed, mut board) = (None, None);
        let clock = Arc::new(SteadyTestClock::new(&shared.time));
        let metrics = Arc::<Metrics>::default();
        let (headcount, store, cache) = match &shared.site {
            Site::Local {
                store_backend,
                cache_backend,
                live,
            } => {
                let (store, cache) = (Wire::new(&shared.held), Wire::new(&shared.held));
                let is_live = shared.setup.is_live;
                let live = live.as_ref().map(|site| {
                    let wires = (Wire::new(&shared.held), Wire::new(&shared.held));
                    let (to_feed, to_board) = &wires;
                    let owed = shared.setup.has_spool.then(|| spool.join("owed"));
                    let parts = match process {
                        Some(address) => site.of_process(to_feed, to_board, &spool, address),
                        None => site.of_service(to_feed, to_board, owed.as_deref()),
                    };
                    feed = Some(Connection::Wire(wires.0));
                    board = Some(Connection::Wire(wires.1));
                    parts
                });
                let opened = Opened {
                    live,
                    store: Arc::new(WiredStore::new(store_backend, &store, is_live)),
                    // A store on the network can't tell, and a clock may go back between two runs of an instance.
                    head: is_live.then(|| store_backend.store.lock().head()),
                };
                let cached = Arc::new(WiredCache::new(cache_backend, &cache));
                let setup = Setup {
                    has_spool: shared.setup.has_spool && process.is_none(),
                    ..shared.setup
                };
                let settings = settings(&setup, &spool, &[]);
                let opening =
                    Headcount::open_over(&settings, opened, cached, clock.clone(), metrics);
                (
                    opening.await,
                    Connection::Wire(store),
                    Connection::Wire(cache),
                )
            }
            Site::Remote(servers) => {
                let store = Proxied::to(servers.store_port().await).await;
                let cache = Proxied::to(servers.cache_port().await).await;
                let of_site = servers.settings(store.port(), cache.port()).await;
                let settings = settings(&shared.setup, &spool, &of_site);
                let opened = wiring::open_store(&settings, &metrics).await;
                let cached = cache_without_skew_limit(&settings);
                let opening = Headcount::open_over(
                    &settings,
                    opened.unwrap(),
                    cached,
                    clock.clone(),
                    metrics,
                );
                (
                    opening.await,
                    Connection::Proxied(store),
                    Connection::Proxied(cache),
                )
            }
        };
        Self {
            headcount: Arc::new(headcount.unwrap()),
            clock,
            store,
            cache,
            feed,
            board,
            spool,
            started: Instant::now(),
        }
    }

    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        let always = [&self.store, &self.cache].into_iter();
        always.chain(&self.feed).chain(&self.board)
    }

    /// Restores all connections.
    pub fn restore(&self) {
        self.connections().for_each(Connection::restore);
    }

    /// Ends it as a supervisor does: none of its calls is held any more.
    pub async fn end(&self) {
        self.restore();
        self.headcount.shut_down().await.unwrap();
    }

    /// Ends it as SIGKILL does: none of its calls has an effect any more. Its files stay as they are now.
    pub fn kill(&self, left: &Path) {
        self.connections().for_each(Connection::kill);
        if self.spool.exists() {
            copy(&self.spool, left);
        }
    }
}

/// Copies a directory, except locks.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if entry.file_name() != "lock" {
            // A file that was removed meanwhile was not needed any more.
            let _ = std::fs::copy(entry.path(), to.join(entry.file_name()));
        }
    }
}
