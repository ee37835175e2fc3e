//! Faults of the store, the cache and time, in this process or on servers.

use std::sync::Arc;
use std::time::Duration;

use domain::store::PairStore;
use futures::executor::block_on;
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use tokio::time::Instant;

use super::instance::{self, Site};
use super::world::World;

/// The largest step of the clocks where a server has its own.
const FARTHEST: Duration = Duration::from_secs(600);

impl World {
    /// Advances all clocks, and the timers where possible.
    pub async fn pass(&mut self, by: Duration) {
        if self.is_remote() {
            self.shared.time.pass(by.min(FARTHEST));
        } else {
            self.wait_for_repair().await;
            self.shared.time.pass(by);
            tokio::time::advance(by).await;
            self.jumped = Some(Instant::now());
        }
    }

    /// The maximum real run time of timers.
    pub fn longest_wait(&self) -> Duration {
        match self.is_remote() {
            true => Duration::from_millis(400),
            false => Duration::MAX,
        }
    }

    pub async fn flush(&self) {
        match &self.shared.site {
            Site::Local { cache_backend, .. } => cache_backend.flush(),
            Site::Remote(servers) => servers.flush_cache().await,
        }
    }

    pub async fn kill_cache(&self) {
        match &self.shared.site {
            Site::Local { cache_backend, .. } => cache_backend.flush(),
            Site::Remote(servers) => servers.kill_cache().await,
        }
        for instance in &self.instances {
            instance.cache.note_kill();
        }
    }

    pub async fn kill_store(&mut self) {
        match &self.shared.site {
            Site::Local { .. } => self.kill_local_store(),
            Site::Remote(servers) => servers.kill_store().await,
        }
        for instance in &self.instances {
            instance.store.note_kill();
        }
    }

    fn kill_local_store(&mut self) {
        let left = self.fresh_folder();
        let folder = self.store_folder();
        let Site::Local { store_backend, .. } = &self.shared.site else {
            return;
        };
        instance::copy(&folder, &left);
        let former = Arc::clone(&store_backend.store.lock());
        // Immediately, so that no call uses a closed store.
        block_on(PairStore::close(&*former)).unwrap();
        drop(former);
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::rename(&left, &folder).unwrap();
        let options = EmbeddedOptions::new(&folder, self.settings.frame);
        *store_backend.store.lock() = Arc::new(EmbeddedStore::open(options).unwrap());
    }

    /// Expires what would take long: locks that were not released, and trust in old lists.
    pub async fn pass_long(&mut self) {
        match &self.shared.site {
            // Longer than the TTL of a lock, and longer than a list of segments is trusted.
            Site::Local { .. } => tokio::time::advance(Duration::from_secs(3601)).await,
            Site::Remote(servers) => servers.pass_time().await,
        }
    }
}
