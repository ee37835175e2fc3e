//! What happens to the store, to the cache and to time, wherever they are.

use std::sync::Arc;
use std::time::Duration;

use domain::store::PairStore;
use futures::executor::block_on;
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use tokio::time::Instant;

use super::instance::{self, Site};
use super::world::World;

/// The farthest that clocks go ahead at once where a server has one of its own.
const FARTHEST: Duration = Duration::from_secs(600);

impl World {
    /// All clocks go on, timers with them where that can be had.
    pub async fn pass(&mut self, by: Duration) {
        if self.is_there() {
            self.shared.time.pass(by.min(FARTHEST));
        } else {
            self.shared.time.pass(by);
            tokio::time::advance(by).await;
            self.jumped = Some(Instant::now());
        }
    }

    /// How long timers may really run.
    pub fn longest_wait(&self) -> Duration {
        match self.is_there() {
            true => Duration::from_millis(400),
            false => Duration::MAX,
        }
    }

    pub async fn flush(&self) {
        match &self.shared.site {
            Site::Here { shelf, .. } => shelf.flush(&self.settings.frame).await,
            Site::There(servers) => servers.flush_cache().await,
        }
    }

    pub async fn kill_cache(&self) {
        match &self.shared.site {
            Site::Here { shelf, .. } => shelf.flush(&self.settings.frame).await,
            Site::There(servers) => servers.kill_cache().await,
        }
        for instance in &self.instances {
            instance.cache.note_kill();
        }
    }

    pub async fn kill_store(&mut self) {
        match &self.shared.site {
            Site::Here { .. } => self.kill_store_here(),
            Site::There(servers) => servers.kill_store().await,
        }
        for instance in &self.instances {
            instance.store.note_kill();
        }
    }

    fn kill_store_here(&mut self) {
        let left = self.fresh_folder();
        let folder = self.store_folder();
        let Site::Here { stock, .. } = &self.shared.site else {
            return;
        };
        instance::copy(&folder, &left);
        let former = Arc::clone(&stock.store.lock());
        // At once, so that no call meets a store that is closed.
        block_on(PairStore::close(&*former)).unwrap();
        drop(former);
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::rename(&left, &folder).unwrap();
        let options = EmbeddedOptions::new(&folder, self.settings.frame);
        *stock.store.lock() = Arc::new(EmbeddedStore::open(options).unwrap());
    }

    /// What would take long to go by itself goes: locks that were not given back, trust in old lists.
    pub async fn pass_long(&mut self) {
        match &self.shared.site {
            // Longer than a lock, and than a list of segments is trusted.
            Site::Here { .. } => tokio::time::advance(Duration::from_secs(3601)).await,
            Site::There(servers) => servers.pass_time().await,
        }
    }
}
