//! kill -9 at any instant of load, snapshot, rotation and start: afterwards the service has exactly the changes that it
//! acknowledged.
//!
//! `HEADCOUNT_TEST_CRASH_ROUNDS` sets the number of rounds. `HEADCOUNT_TEST_CRASH_SEED` repeats a run, as far as the
//! timing of the machine allows.

mod coverage;
mod kill_point;
mod ledger;
mod rounds;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rounds::{Kept, Plan, Victim, run};

use crate::support::disks::OwnDisk;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::stderr::skip;
use crate::support::wait::until;

/// Sizes that cause a snapshot every second and a new log file every few requests. Pairs expire after half a minute
/// and are removed every second.
const RESTLESS: [(&str, &str); 5] = [
    ("SNAPSHOT_AFTER", "64 KiB"),
    ("DATA_FILE_BYTES", "64 KiB"),
    ("WINDOW", "30s"),
    ("RESOLUTION", "1s"),
    ("REFRESH_INTERVAL", "1s"),
];

/// The service with the embedded store in a directory.
struct Embedded(Kept);

impl Victim for Embedded {
    fn settings(&self) -> Vec<(&str, &str)> {
        RESTLESS.to_vec()
    }

    fn home(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }

    fn log_dir(&self) -> PathBuf {
        self.home().join("headcount-data")
    }

    fn may_refuse(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_survive_kill_9_at_any_instant() {
    run("embedded", Plan::of(10), &mut Embedded(Kept::new())).await;
}

/// The service with the embedded store on a file system that loses unsynced writes.
struct PowerCut(OwnDisk);

impl Victim for PowerCut {
    fn settings(&self) -> Vec<(&str, &str)> {
        RESTLESS.to_vec()
    }

    fn home(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn log_dir(&self) -> PathBuf {
        self.home().join("headcount-data")
    }

    /// Writes fail between the power cut and the kill.
    fn may_refuse(&self) -> bool {
        true
    }

    fn at_kill(&mut self, proves_nothing: &AtomicBool) {
        // After a real power cut no response is sent. Here the process runs on for some milliseconds, and the kernel
        // may report success for a sync whose transaction was just discarded.
        proves_nothing.store(true, Ordering::SeqCst);
        assert!(self.0.lose_power());
    }

    async fn after_kill(&mut self) {
        self.0.mount_again();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_survive_a_power_cut_at_any_instant() {
    let Some(disk) = OwnDisk::ext4() else {
        return;
    };
    if !disk.lose_power() {
        skip("a power cut: xfs_io can't shut a file system down here");
        return;
    }
    disk.mount_again();
    std::fs::create_dir(disk.path().join("data")).unwrap();
    // Sync the directory: the first power cut may precede the first sync of the service.
    let parent = std::fs::File::open(disk.path()).unwrap();
    parent.sync_all().unwrap();
    drop(parent);
    run("power cut", Plan::of(5), &mut PowerCut(disk)).await;
}

/// The service with a store that is unavailable at times, and a spool for the pairs meanwhile.
struct Spooling {
    home: Kept,
    proxy: Proxy,
    url: String,
    starts: usize,
    redis: Redis,
}

impl Victim for Spooling {
    fn settings(&self) -> Vec<(&str, &str)> {
        let own = [("STORE", "redis"), ("REDIS_URL", &self.url)];
        RESTLESS.into_iter().chain(own).collect()
    }

    fn home(&self) -> PathBuf {
        self.home.path().to_path_buf()
    }

    fn log_dir(&self) -> PathBuf {
        self.home().join("headcount-spool")
    }

    /// An erasure needs the store.
    fn may_refuse(&self) -> bool {
        true
    }

    fn has_spool(&self) -> bool {
        true
    }

    /// Waits until no request of the killed process is in flight, so that its writes are in the store or never will be.
    async fn after_kill(&mut self) {
        until("its connections are closed", async || {
            self.proxy.connections() == 0
        })
        .await;
        // The server executes all earlier requests before this command.
        assert_eq!(self.redis.cli(&["PING"]), "PONG");
    }

    fn before_load(&mut self, random: &mut fastrand::Rng) {
        match random.u8(..3) {
            0 => self.proxy.restore(),
            _ => self.proxy.cut(),
        }
    }

    async fn ready(&mut self, server: &Service, last: bool) -> bool {
        self.starts += 1;
        if !last && !self.starts.is_multiple_of(3) {
            return false;
        }
        self.proxy.restore();
        until("the spool is drained", async || {
            let ready = server.get("/readyz").await;
            let (store, spool) = (&ready["components"]["store"], &ready["components"]["spool"]);
            store["ok"] == true && spool["ok"] == true && spool["detail"].is_null()
        })
        .await;
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spooled_pairs_are_counted_once_after_kill_9_at_any_instant() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (home, proxy) = (Kept::new(), Proxy::to(redis.port()).await);
    let mut victim = Spooling {
        url: format!("redis://{}", proxy.address()),
        home,
        proxy,
        starts: 0,
        redis,
    };
    run("spool", Plan::of(6), &mut victim).await;
}
