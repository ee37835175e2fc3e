//! Directories of the embedded store with a given number of pairs, created once per run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use domain::Batch;
use domain::store::PairStore;
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::progress;
use super::support::stores::record_all;
use super::support::traffic::{BATCH, SEGMENTS, Seen, batch, frame, present, zipf};
use super::table::grouped;

/// The default of `data_dir`, relative to the working directory of the service.
pub(crate) const DATA: &str = "headcount-data";

/// The original directories by number of pairs. Services get copies, since they write.
#[derive(Default)]
pub(crate) struct Filled {
    with_log: RefCell<BTreeMap<u64, TempDir>>,
    with_snapshot: RefCell<BTreeMap<u64, TempDir>>,
}

impl Filled {
    /// A directory with a log and without a snapshot.
    pub(crate) fn with_log(&self, pairs: u64, runtime: &Runtime) -> TempDir {
        let mut originals = self.with_log.borrow_mut();
        let original = originals.entry(pairs).or_insert_with(|| {
            progress(&format!("filling a store with {} pairs", grouped(pairs)));
            let directory = tempfile::tempdir().unwrap();
            runtime.block_on(fill(&directory.path().join(DATA), arriving(pairs)));
            directory
        });
        copy_of(original.path())
    }

    /// A directory with a snapshot that covers the whole log.
    pub(crate) fn with_snapshot(&self, pairs: u64, runtime: &Runtime) -> TempDir {
        let mut originals = self.with_snapshot.borrow_mut();
        let original = originals.entry(pairs).or_insert_with(|| {
            let directory = self.with_log(pairs, runtime);
            runtime.block_on(async {
                let store = open(&directory.path().join(DATA));
                store.snapshot().await.unwrap();
                store.close().await.unwrap();
            });
            directory
        });
        copy_of(original.path())
    }
}

/// Pairs in arrival order. Every user is new, segments have unequal sizes, and the slots cover most of a window.
pub(crate) fn arriving(pairs: u64) -> impl Iterator<Item = Seen> {
    let mut random = fastrand::Rng::with_seed(7);
    let first = present() - 20_000;
    (0..pairs).map(move |user| Seen {
        user,
        segment: zipf(&mut random),
        slot: first + user * 20_000 / pairs,
    })
}

/// A store that takes a snapshot only on request.
pub(crate) fn open(directory: &Path) -> EmbeddedStore {
    let options = EmbeddedOptions {
        snapshot_bytes: u64::MAX,
        ..EmbeddedOptions::new(directory, frame())
    };
    EmbeddedStore::open(options).unwrap()
}

/// Records pairs in batches of the regular size.
pub(crate) async fn fill(directory: &Path, mut pairs: impl Iterator<Item = Seen>) {
    let store = open(directory);
    loop {
        let batches: Vec<Batch> = (0..100)
            .map(|_| batch(pairs.by_ref().take(BATCH)))
            .take_while(|batch| !batch.is_empty())
            .collect();
        record_all(&store, &batches, 4).await;
        if batches.len() < 100 {
            break;
        }
    }
    store.close().await.unwrap();
}

fn copy_of(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let status = Command::new("cp")
        .arg("--recursive")
        .args([directory.join(DATA), copy.path().join(DATA)])
        .status();
    assert!(status.unwrap().success());
    // Dirty pages must not be flushed to the disk during a measurement.
    assert!(Command::new("sync").status().unwrap().success());
    copy
}

/// Fails unless `users` users are counted, except for a few collisions of 48-bit fingerprints: 0.2 are expected among ten
/// million users of one segment.
pub(crate) fn assert_counted(counted: u64, users: u64) {
    let collisions = users.checked_sub(counted);
    assert!(
        collisions.is_some_and(|collisions| collisions <= 5),
        "counted {counted} of {users} users"
    );
}

/// The sum of the users of all segments of a service.
pub(crate) fn users(service: &super::support::peer::Peer) -> u64 {
    let list = service.get(&format!("/v1/segments?limit={SEGMENTS}"));
    let segments = list["segments"].as_array().unwrap();
    segments
        .iter()
        .map(|segment| segment["users"].as_u64().unwrap())
        .sum()
}
