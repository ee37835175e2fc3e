use std::sync::Arc;

use super::*;
use domain::BatchBuilder;
use domain::store::conformance::{self, Factory};
use wal::Position;

struct Embedded(tempfile::TempDir, std::sync::atomic::AtomicUsize);

#[async_trait]
impl Factory for Embedded {
    async fn empty(&self, frame: TimeFrame) -> Arc<dyn PairStore> {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        let dir = self.0.path().join(number.to_string());
        Arc::new(EmbeddedStore::open(EmbeddedOptions::new(dir, frame)).unwrap())
    }
}

fn factory() -> Embedded {
    Embedded(
        tempfile::tempdir().unwrap(),
        std::sync::atomic::AtomicUsize::new(0),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conformance::check_store(&factory()).await;
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn open(dir: &std::path::Path) -> EmbeddedStore {
    EmbeddedStore::open(EmbeddedOptions::new(dir, conformance::frame(60))).unwrap()
}

fn batch(users: std::ops::Range<u32>, segment: &str, slots_back: u64) -> Batch {
    let slot = conformance::frame(60).resolution().slot_of(now()).number() - slots_back;
    let mut builder = BatchBuilder::default();
    for user in users {
        let user = UserId::new(format!("u{user}")).unwrap();
        builder.push_pair(&user, segment, Slot::new(slot)).unwrap();
    }
    builder.finish()
}

async fn count(store: &EmbeddedStore, segment: &str) -> u64 {
    let segment = Segment::new(segment).unwrap();
    store
        .count(&segment, store.frame.full_window(), now())
        .await
        .unwrap()
        .users
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reopened_store_knows_what_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let store = open(dir.path());
        assert_eq!(count(&store, "a").await, round * 1000);
        let start = u32::try_from(round).unwrap() * 1000;
        store
            .record(&batch(start..start + 1000, "a", round))
            .await
            .unwrap();
        if round == 0 {
            store.record(&batch(0..10, "b", 0)).await.unwrap();
        }
        if round == 1 {
            store.snapshot().await.unwrap();
        }
        if round == 2 {
            store
                .forget(&UserId::new("u3").unwrap(), now())
                .await
                .unwrap();
            store.record(&batch(3..4, "a", 0)).await.unwrap();
        }
        // Odd rounds end like a crash, without a close.
        if round % 2 == 0 {
            store.close().await.unwrap();
        }
    }
    let store = open(dir.path());
    assert_eq!(count(&store, "a").await, 4000);
    assert_eq!(count(&store, "b").await, 9, "u3 was forgotten there");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_recorded_under_another_key_are_not_counted_twice() {
    let dir = tempfile::tempdir().unwrap();
    let opened = |user_key: Option<&str>| {
        EmbeddedStore::open(EmbeddedOptions {
            user_key: user_key.map(str::to_owned),
            ..EmbeddedOptions::new(dir.path(), conformance::frame(60))
        })
    };
    drop(opened(None).unwrap());
    let refused = opened(Some("a digest"));
    assert!(
        matches!(refused, Err(StoreError::Rejected(_))),
        "{refused:?}"
    );
    // A directory of an earlier version has no such file.
    std::fs::remove_file(dir.path().join("user_key")).unwrap();
    drop(opened(Some("a digest")).unwrap());
    assert!(opened(None).is_err());
}

/// Whether any file of the directory contains the fingerprint of `user`.
fn is_on_disk(store: &EmbeddedStore, dir: &std::path::Path, user: &UserId<'_>) -> bool {
    let fingerprint = Fingerprint::of(user, store.durable.key())
        .number()
        .to_le_bytes();
    let fingerprint = &fingerprint[..6];
    std::fs::read_dir(dir).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        bytes.windows(6).any(|it| it == fingerprint)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_after_an_erasure_leaves_no_fingerprint_and_does_not_wait_for_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let gone = UserId::new("u3").unwrap();
    let hour = Duration::from_hours(1);
    {
        let store = open(dir.path());
        store.record(&batch(0..10, "a", 0)).await.unwrap();
        assert!(!store.state().has_uncovered_erasure(Duration::ZERO));
        store.forget(&gone, now()).await.unwrap();
        assert!(is_on_disk(&store, dir.path(), &gone));
        assert!(store.state().has_uncovered_erasure(Duration::ZERO));
        assert!(!store.state().has_uncovered_erasure(hour), "it may wait");
        store.close().await.unwrap();
    }
    // Its waiting time is unknown, so the next check takes a snapshot.
    let store = open(dir.path());
    while store.state().has_uncovered_erasure(hour) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!is_on_disk(&store, dir.path(), &gone));
    assert!(is_on_disk(&store, dir.path(), &UserId::new("u4").unwrap()));
    assert!(!store.state().has_uncovered_erasure(Duration::ZERO));
    assert_eq!(count(&store, "a").await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_while_writers_write_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0..100 {
                    let start = writer * 100_000 + round * 50;
                    store
                        .record(&batch(start..start + 100, &format!("s{writer}"), 0))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    let snapshots = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..8 {
                store.snapshot().await.unwrap();
            }
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    snapshots.await.unwrap();
    drop(store);
    let store = open(dir.path());
    for writer in 0..4 {
        assert_eq!(count(&store, &format!("s{writer}")).await, 99 * 50 + 100);
    }
    let left = std::fs::read_dir(dir.path()).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let snapshots = names.filter(|name| name.ends_with(".snapshot"));
    assert_eq!(snapshots.count(), 1, "older snapshots are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_bit_of_a_snapshot_is_refused_with_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.record(&batch(0..50, "a", 0)).await.unwrap();
    store.snapshot().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let names = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let path = names
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "snapshot"))
        .unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let refused = EmbeddedStore::open(EmbeddedOptions::new(dir.path(), conformance::frame(60)));
        let Err(StoreError::Damaged(said)) = refused else {
            panic!("byte {at}: {refused:?}")
        };
        assert!(
            said.contains(path.to_str().unwrap()) && said.contains("byte"),
            "{said}"
        );
    }
    std::fs::write(&path, &whole[..whole.len() - 17]).unwrap();
    EmbeddedStore::open(EmbeddedOptions::new(dir.path(), conformance::frame(60))).unwrap_err();
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(count(&open(dir.path()), "a").await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_resolution_or_a_lost_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.record(&batch(0..5, "a", 0)).await.unwrap();
    drop(store);
    let seconds = Duration::from_secs;
    let frame = TimeFrame::new(seconds(3600), seconds(30), seconds(300)).unwrap();
    let refused = EmbeddedStore::open(EmbeddedOptions::new(dir.path(), frame)).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("resolution of 60 s, and 30 s is configured"),
        "{refused}"
    );
    std::fs::remove_file(dir.path().join("identity")).unwrap();
    let refused = EmbeddedStore::open(EmbeddedOptions::new(dir.path(), conformance::frame(60)));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("identity is missing")
    );
}

#[test]
fn any_bytes_are_an_error_or_a_record_and_never_a_panic() {
    let state = State::new(conformance::frame(60));
    let mut random = fastrand::Rng::with_seed(3);
    let mut scratch = Vec::new();
    let at = Position { file: 1, offset: 0 };
    for _ in 0..20_000 {
        let mut record: Vec<u8> = (0..random.usize(..80)).map(|_| random.u8(..)).collect();
        if let Some(kind) = record.first_mut() {
            *kind = random.u8(..5);
        }
        let _ = state.apply(at, &record, &mut scratch);
    }
}
