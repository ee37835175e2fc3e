//! Fails every single disk operation once, while the store opens, writes, and takes a snapshot.

use std::path::Path;

use tempfile::TempDir;

use std::sync::Arc;

use super::*;
use domain::store::conformance::{batch, frame};
use wal::testing::{Faults, MemDisk};

/// More operations than any action in these tests needs.
const ENOUGH: u64 = 10_000;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// Opens a store on an in-memory disk. The real directory is only for the lock.
fn open(root: &TempDir, disk: &MemDisk) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(EmbeddedOptions {
        disk: Arc::new(disk.clone()),
        // Snapshots are taken only when the test requests them.
        snapshot_bytes: u64::MAX,
        ..EmbeddedOptions::new(root.path(), frame(60))
    })
}

async fn put(store: &EmbeddedStore, users: std::ops::Range<u32>) -> Result<(), StoreError> {
    let names: Vec<String> = users.map(|n| format!("u{n}")).collect();
    let slot = frame(60).resolution().slot_of(now());
    let pairs = names.iter().map(|name| (name.as_str(), "s", slot));
    store.record(&batch(pairs)).await
}

fn count(store: &EmbeddedStore) -> u64 {
    let (segment, full) = (Segment::new("s").unwrap(), store.frame.full_window());
    store.count_now(&segment, full, now()).unwrap().users
}

fn fail_after(disk: &MemDisk, operations: u64) {
    disk.set_faults(Faults {
        once: Some(operations),
        ..Faults::default()
    });
}

/// A store with a snapshot of 50 users, one of whom was erased since, and 50 more users in the log.
async fn full(root: &TempDir, disk: &MemDisk) -> EmbeddedStore {
    let store = open(root, disk).unwrap();
    put(&store, 0..50).await.unwrap();
    store.snapshot().await.unwrap();
    put(&store, 50..100).await.unwrap();
    let user = UserId::new("u7").unwrap();
    store.forget(&user, now()).await.unwrap();
    store
}

/// The disks that the next process may find, after the process or the machine has died.
fn afterwards(disk: &MemDisk, seed: u64) -> Vec<MemDisk> {
    let crashes = (0..4).map(|n| disk.crash(seed * 4 + n));
    crashes.chain([disk.kill()]).collect()
}

#[tokio::test]
async fn a_snapshot_survives_the_failure_of_any_operation() {
    for operation in 0..ENOUGH {
        let (root, disk) = (tempfile::tempdir().unwrap(), MemDisk::default());
        let store = full(&root, &disk).await;
        fail_after(&disk, operation);
        let taken = store.snapshot().await;
        let failed = disk.has_failed_once();
        disk.set_faults(Faults::default());
        // Superfluous files may remain, which is no failure of the snapshot.
        assert_eq!(taken.is_err(), store.stats().snapshot_failures == 1);
        assert_eq!(count(&store), 99, "operation {operation}: reads go on");
        let mut least = 99;
        match put(&store, 100..101).await {
            Ok(()) => least += 1,
            // A write may fail only if it is unknown which file is the log's last.
            Err(error) => assert!(
                store.log().check().is_err(),
                "operation {operation}: {error}"
            ),
        }
        if store.log().check().is_ok() {
            store.snapshot().await.unwrap();
            put(&store, 101..102).await.unwrap();
            least += 1;
        }
        drop(store);
        for disk in afterwards(&disk, operation) {
            let store = open(&root, &disk).unwrap();
            assert_eq!(
                count(&store),
                least,
                "operation {operation}: after a restart"
            );
        }
        if !failed {
            assert!(operation > 10, "there is more to fail");
            return;
        }
    }
}

#[tokio::test]
async fn a_write_survives_the_failure_of_any_operation() {
    for operation in 0..ENOUGH {
        let (root, disk) = (tempfile::tempdir().unwrap(), MemDisk::default());
        let store = full(&root, &disk).await;
        fail_after(&disk, operation);
        let written = put(&store, 100..110).await;
        let failed = disk.has_failed_once();
        disk.set_faults(Faults::default());
        let least = if written.is_ok() { 109 } else { 99 };
        assert_eq!(count(&store), least, "operation {operation}: reads go on");
        drop(store);
        for disk in afterwards(&disk, operation) {
            let found = count(&open(&root, &disk).unwrap());
            // After an error the record may be in the log, complete.
            assert!(
                [least, 109].contains(&found),
                "operation {operation}: {found}"
            );
        }
        if !failed {
            written.unwrap();
            return;
        }
    }
}

/// Opens the store with each operation failing in turn: the error names a file, and the next start finds all pairs.
async fn open_with_each_failure(made: impl AsyncFn(&TempDir) -> (MemDisk, u64)) {
    for operation in 0..ENOUGH {
        let root = tempfile::tempdir().unwrap();
        let (disk, users) = made(&root).await;
        fail_after(&disk, operation);
        let opened = open(&root, &disk);
        let failed = disk.has_failed_once();
        disk.set_faults(Faults::default());
        match opened {
            Ok(store) => assert_eq!(count(&store), users, "operation {operation}"),
            Err(error) => assert_names_a_file(&error, root.path()),
        }
        for disk in afterwards(&disk, operation) {
            let store = open(&root, &disk).unwrap();
            assert_eq!(
                count(&store),
                users,
                "operation {operation}: the next start"
            );
            put(&store, 500..501).await.unwrap();
            assert_eq!(count(&store), users + 1);
        }
        if !failed {
            return;
        }
    }
}

fn assert_names_a_file(error: &StoreError, root: &Path) {
    let said = error.to_string();
    assert!(matches!(error, StoreError::Unavailable(_)), "{said}");
    assert!(said.contains(root.to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn a_start_survives_the_failure_of_any_operation() {
    open_with_each_failure(async |_| (MemDisk::default(), 0)).await;
    open_with_each_failure(async |root| {
        let disk = MemDisk::default();
        drop(full(root, &disk).await);
        (disk, 99)
    })
    .await;
}

#[tokio::test]
async fn a_start_after_a_crash_survives_the_failure_of_any_operation() {
    open_with_each_failure(async |root| {
        let disk = MemDisk::default();
        let store = full(root, &disk).await;
        // A write that was never acknowledged, a part of which is on disk.
        disk.set_faults(Faults {
            sync: true,
            ..Faults::default()
        });
        put(&store, 200..300).await.unwrap_err();
        let cut = disk.kill();
        drop(store);
        let last = root.path().join("00000000000000000002.log");
        let mut bytes = cut.bytes(&last);
        bytes.truncate(bytes.len() - 100);
        cut.put(&last, bytes);
        (cut, 99)
    })
    .await;
}
