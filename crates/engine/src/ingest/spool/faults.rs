//! Fault injection: each operation on the spool's disk fails once. Acknowledged pairs are still delivered.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::ingest::erasures::Erasures;
use domain::store::PairStore;
use domain::store::model::Model;
use domain::{BatchBuilder, Clock, ManualClock, Slot, TimeFrame, UserId};
use wal::testing::{Faults, MemDisk};

/// More disk operations than any test here performs.
const ENOUGH: u64 = 10_000;

/// A store that remembers the users whose pairs it took.
#[derive(Debug, Default)]
struct Taken(parking_lot::Mutex<BTreeSet<String>>);

#[async_trait]
impl Sink for Taken {
    async fn take(&self, batch: &Batch) -> Result<(), StoreError> {
        let users = batch.pairs().map(|pair| pair.user.as_str().to_owned());
        self.0.lock().extend(users);
        Ok(())
    }
}

fn frame() -> TimeFrame {
    let minute = Duration::from_secs(60);
    TimeFrame::new(60 * minute, minute, Duration::ZERO).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn one(user: &str) -> Batch {
    let mut batch = BatchBuilder::default();
    let user = UserId::new(user).unwrap();
    batch.push_pair(&user, "s", Slot::new(5)).unwrap();
    batch.finish()
}

fn open(root: &tempfile::TempDir, disk: &MemDisk) -> Result<Arc<Spool>, StoreError> {
    let disk = Arc::new(disk.clone());
    Ok(Arc::new(Spool::open_on(
        disk,
        root.path(),
        64 << 20,
        frame().resolution(),
    )?))
}

/// Delivers until nothing waits, or until the spool's log has failed. Tokio's time is paused, so delays take no real time.
async fn deliver_all(spool: &Arc<Spool>, sink: &Arc<Taken>) {
    let stop = CancellationToken::new();
    let sink = Arc::clone(sink) as Arc<dyn Sink>;
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now()));
    let notes: Arc<dyn PairStore> = Arc::new(Model::default());
    let parts = DeliveryParts {
        spool: Arc::clone(spool),
        frame: frame(),
        clock: Arc::clone(&clock),
        erasures: Arc::new(Erasures::new(notes, &frame(), clock)),
    };
    let task = tokio::spawn(deliver(parts, sink, stop.clone()));
    while spool.ledger.oldest_file().is_some() && spool.check().is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    task.await.unwrap();
}

/// Closes a spool, so that its directory is unlocked.
async fn end(spool: Arc<Spool>) {
    spool.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_delivered_whatever_fails_once() {
    for operation in 0..ENOUGH {
        let (root, disk) = (tempfile::tempdir().unwrap(), MemDisk::default());
        let spool = open(&root, &disk).unwrap();
        let sink = Arc::new(Taken::default());
        spool.append(&one("before"), now()).await.unwrap();
        disk.set_faults(Faults {
            once: Some(operation),
            ..Faults::default()
        });
        let mut acknowledged = vec!["before".to_owned()];
        for user in ["a", "b", "c"] {
            if spool.append(&one(user), now()).await.is_ok() {
                acknowledged.push(user.to_owned());
            }
        }
        let writes = spool.check().is_ok();
        if writes {
            deliver_all(&spool, &sink).await;
        }
        let failed = disk.has_failed_once();
        disk.set_faults(Faults::default());
        if writes && spool.append(&one("after"), now()).await.is_ok() {
            acknowledged.push("after".to_owned());
        }
        end(spool).await;
        // The next process delivers what it finds. Together with the previous deliveries that must be everything.
        let (delivered, seed) = (sink.0.lock().clone(), operation * 4);
        for disk in [disk.kill(), disk.crash(seed), disk.crash(seed + 1)] {
            let sink = Arc::new(Taken(parking_lot::Mutex::new(delivered.clone())));
            let spool = open(&root, &disk).unwrap();
            deliver_all(&spool, &sink).await;
            end(spool).await;
            let taken = sink.0.lock().clone();
            for user in &acknowledged {
                assert!(
                    taken.contains(user),
                    "operation {operation}: {user} is lost"
                );
            }
        }
        if !failed {
            assert!(operation > 10, "there is more to fail");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_survives_the_failure_of_any_operation() {
    for fresh in [true, false] {
        for operation in 0..ENOUGH {
            let (root, disk) = (tempfile::tempdir().unwrap(), MemDisk::default());
            if !fresh {
                let spool = open(&root, &disk).unwrap();
                spool.append(&one("before"), now()).await.unwrap();
                end(spool).await;
            }
            disk.set_faults(Faults {
                once: Some(operation),
                ..Faults::default()
            });
            let opened = open(&root, &disk);
            let failed = disk.has_failed_once();
            disk.set_faults(Faults::default());
            match opened {
                Ok(spool) => end(spool).await,
                Err(error) => {
                    let message = error.to_string();
                    assert!(matches!(error, StoreError::Unavailable(_)), "{message}");
                    let root = root.path().to_str().unwrap();
                    assert!(message.contains(root), "{message}");
                }
            }
            for disk in [disk.kill(), disk.crash(operation)] {
                let (spool, sink) = (open(&root, &disk).unwrap(), Arc::new(Taken::default()));
                deliver_all(&spool, &sink).await;
                end(spool).await;
                assert_eq!(sink.0.lock().contains("before"), !fresh);
            }
            if !failed {
                break;
            }
        }
    }
}
