//! Files: the directories of the embedded store and of the spool, and the tokens file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::store::{PairStore, StoreError};
use domain::{Batch, BatchBuilder, Clock, Flow, Slot, Timestamp};
use engine::ingest::erasures::Erasures;
use engine::ingest::spool::{DeliveryParts, Sink, Spool, deliver};
use parking_lot::Mutex;
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use tokio_util::sync::CancellationToken;

use super::content::{self, SEGMENTS, USERS, batch, now};
use super::{recorded, records, text};
use crate::support::program::run;
use crate::support::two_weeks;
use crate::support::wait::until;

/// Large enough for all pairs.
const CAPACITY: u64 = 64 << 20;

/// Replaces a recorded folder with the files of `from`.
fn save(from: &Path, name: &str) {
    let to = recorded(name);
    let _ = std::fs::remove_dir_all(&to);
    copy(from, &to);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "lock" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn embedded(dir: &Path) -> EmbeddedStore {
    let options = EmbeddedOptions {
        user_key: Some("a digest".to_owned()),
        ..EmbeddedOptions::new(dir, two_weeks())
    };
    EmbeddedStore::open(options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_embedded_store_directory_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    if records() {
        let store = embedded(dir.path());
        content::record(&store, async || store.snapshot().await.unwrap()).await;
        store.close().await.unwrap();
        save(dir.path(), "embedded");
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&recorded("embedded"), dir.path());
    for _ in 0..2 {
        let store = embedded(dir.path());
        content::check(&store).await;
        // The second iteration reads the snapshot of this build.
        store.snapshot().await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_counters_counts_who_enters_from_now_on() {
    let dir = tempfile::tempdir().unwrap();
    copy(&recorded("embedded"), dir.path());
    let slot = two_weeks().resolution().slot_of(now());
    let later = |slots: u64| Slot::new(slot.number() + slots);
    let (name, at) = (
        content::segment(SEGMENTS[0]),
        now() + Duration::from_mins(3),
    );
    let flow = |store: &EmbeddedStore| {
        let spans = [slot..later(1), later(1)..later(2), later(1)..later(4)];
        store.flow(&name, &spans, at).unwrap()
    };
    let entered = |entered| Some(Flow { entered, left: 0 });
    let store = embedded(dir.path());
    assert_eq!(flow(&store), [None, entered(0), entered(0)]);
    let mut pairs = BatchBuilder::default();
    for (user, slot) in [("new", later(3)), (USERS[1], later(3))] {
        let user = content::user(user);
        pairs.push_pair(&user, SEGMENTS[0], slot).unwrap();
    }
    store.record(&pairs.finish()).await.unwrap();
    let expected = [None, entered(0), entered(1)];
    assert_eq!(flow(&store), expected);
    drop(store);
    let store = embedded(dir.path());
    assert_eq!(flow(&store), expected, "after a kill");
    store.snapshot().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(flow(&embedded(dir.path())), expected, "after a snapshot");
}

#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        now()
    }

    fn not_before(&self, _: Timestamp) {}
}

/// A pair as plain values.
type Plain = (String, String, u64);

fn plain(batch: &Batch) -> Vec<Plain> {
    let pairs = batch.pairs().map(|pair| {
        let segment = pair.segment.to_string();
        (segment, pair.user.as_str().to_owned(), pair.slot.number())
    });
    pairs.collect()
}

#[derive(Default)]
struct Taken(Mutex<Vec<Plain>>);

#[async_trait]
impl Sink for Taken {
    async fn take(&self, batch: &Batch) -> Result<(), StoreError> {
        self.0.lock().extend(plain(batch));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_spool_directory_is_readable() {
    let resolution = two_weeks().resolution();
    if records() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), CAPACITY, resolution).unwrap();
        for segment in 0..SEGMENTS.len() {
            spool.append(&batch(segment), now()).await.unwrap();
        }
        spool.erasure_at(now()).await;
        spool.close().await.unwrap();
        save(dir.path(), "spool");
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&recorded("spool"), dir.path());
    let spool = Arc::new(Spool::open(dir.path(), CAPACITY, resolution).unwrap());
    let expected = [plain(&batch(0)), plain(&batch(1))].concat();
    assert_eq!(spool.stats(now()).waiting_pairs, expected.len() as u64);
    let later = spool.erasure_at(now() - Duration::from_secs(1)).await;
    assert_eq!(later, now(), "no erasure precedes the last record");
    let notes = tempfile::tempdir().unwrap();
    let store: Arc<dyn PairStore> = Arc::new(embedded(notes.path()));
    let parts = DeliveryParts {
        spool: Arc::clone(&spool),
        frame: two_weeks(),
        clock: Arc::new(Fixed),
        erasures: Arc::new(Erasures::new(store, &two_weeks(), Arc::new(Fixed))),
    };
    let (taken, stop) = (Arc::new(Taken::default()), CancellationToken::new());
    let delivering = tokio::spawn(deliver(parts, taken.clone(), stop.clone()));
    until("the spool is delivered", async || {
        spool.stats(now()).waiting_pairs == 0
    })
    .await;
    stop.cancel();
    delivering.await.unwrap();
    assert_eq!(*taken.0.lock(), expected);
    assert_eq!(expected.len(), USERS.len() + USERS.len() / 2);
}

#[test]
fn a_recorded_tokens_file_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let of = |arguments: &[&str]| {
        let path = recorded("tokens.toml");
        let settings = [("tokens_file", path.to_str().unwrap())];
        run(dir.path(), &settings, arguments)
    };
    if records() {
        let _ = std::fs::remove_file(recorded("tokens.toml"));
        let plain = of(&["token", "new", "--name", "writer", "--scope", "write"]);
        assert_eq!(plain.code, Some(0), "{plain:?}");
        let bound = of(&[
            "token",
            "new",
            "--name",
            "reader",
            "--scope",
            "read,users,erase,admin",
            "--segments",
            "sports*",
            "--expires-in",
            "9000d",
            "--limit-requests",
            "7",
        ]);
        assert_eq!(bound.code, Some(0), "{bound:?}");
        std::fs::remove_file(recorded("tokens.toml.lock")).unwrap();
    }
    let listed = of(&["token", "list", "--json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert_eq!(listed.out, text("tokens.json", &listed.out));
}
