//! A fuzz target: opens an embedded store with damaged files.

use std::collections::BTreeMap;

use std::sync::Arc;

use super::*;
use domain::BatchBuilder;
use domain::store::conformance::frame;
use fuzzing::{Edit, edit};
use wal::Disk;
use wal::testing::MemDisk;

/// Users per segment.
type Counts = BTreeMap<String, u64>;

/// The files of a directory after a number of steps, and the counts after each step.
struct Truth {
    files: Vec<(String, Vec<u8>)>,
    steps: Vec<Counts>,
    /// The number of first steps that a damaged end of the log can't undo, because a snapshot covers them.
    fixed: usize,
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    root: tempfile::TempDir,
    truths: Vec<Truth>,
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn counts(store: &EmbeddedStore) -> Counts {
    let present = store.slot(now());
    let counted = store.state().index.segments(present);
    counted
        .into_iter()
        .map(|(segment, users)| (segment.to_string(), users))
        .collect()
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build();
        let mut bench = Self {
            runtime: runtime.unwrap(),
            root: tempfile::tempdir().unwrap(),
            truths: Vec::new(),
        };
        for snapshots in [&[][..], &[4], &[0, 9], &[3, 7]] {
            for closed in [false, true] {
                bench.truths.push(bench.truth(snapshots, closed));
            }
        }
        bench
    }

    fn open(&self, disk: &MemDisk) -> Result<EmbeddedStore, StoreError> {
        EmbeddedStore::open(EmbeddedOptions {
            disk: Arc::new(disk.clone()),
            snapshot_bytes: u64::MAX,
            ..EmbeddedOptions::new(self.root.path(), frame(60))
        })
    }

    fn truth(&self, snapshots: &[usize], closed: bool) -> Truth {
        let disk = MemDisk::default();
        let store = self.open(&disk).unwrap();
        let present = store.slot(now()).number();
        let mut steps = vec![counts(&store)];
        let mut fixed = 0;
        for step in 0..12_u64 {
            let mut batch = BatchBuilder::default();
            for n in 0..=step {
                let user = UserId::new(format!("u{}", n * step % 13)).unwrap();
                let slot = Slot::new(present - (step * 7 + n) % 60);
                let segment = ["news", "sports", "x"][(n % 3) as usize];
                batch.push_pair(&user, segment, slot).unwrap();
            }
            let recorded = match step {
                5 => self.runtime.block_on(async {
                    store
                        .forget(&UserId::new("u5").unwrap(), now())
                        .await
                        .map(drop)
                }),
                _ => self.runtime.block_on(store.record(&batch.finish())),
            };
            recorded.unwrap();
            steps.push(counts(&store));
            if snapshots.contains(&(step as usize)) {
                self.runtime.block_on(store.snapshot()).unwrap();
                fixed = steps.len() - 1;
            }
        }
        let killed = disk.kill();
        self.runtime.block_on(store.close()).unwrap();
        drop(store);
        let disk = if closed { disk } else { killed };
        let names = disk.list(self.root.path()).unwrap();
        let bytes = |name: String| {
            let bytes = disk.bytes(&self.root.path().join(&name));
            (name, bytes)
        };
        Truth {
            files: names.into_iter().map(bytes).collect(),
            steps,
            fixed,
        }
    }

    fn check(&self, truth: u8, file: u8, edits: &[Edit]) {
        let truth = &self.truths[usize::from(truth) % self.truths.len()];
        let damaged = usize::from(file) % truth.files.len();
        let disk = MemDisk::default();
        let mut changed = false;
        for (number, (name, bytes)) in truth.files.iter().enumerate() {
            let mut bytes = bytes.clone();
            if number == damaged {
                edit(&mut bytes, edits);
                changed = bytes != truth.files[damaged].1;
            }
            disk.put(&self.root.path().join(name), bytes);
        }
        let name = &truth.files[damaged].0;
        match self.open(&disk) {
            Ok(store) => {
                let counted = counts(&store);
                let possible = match changed && name.ends_with(".log") {
                    true => &truth.steps[truth.fixed..],
                    false => &truth.steps[truth.steps.len() - 1..],
                };
                assert!(
                    possible.contains(&counted),
                    "{name} {counted:?} {possible:?}"
                );
                self.runtime.block_on(store.close()).unwrap();
            }
            Err(error) => {
                assert!(changed, "{error}");
                let told = error.to_string();
                assert!(told.contains(&**name), "{name}: {told}");
                assert!(!matches!(error, StoreError::Unavailable(_)), "{told}");
                let has_offset = told.contains("at byte") || told.contains("format version");
                let is_read_whole = name == "identity" || name == "user_key";
                assert!(has_offset || is_read_whole, "{told}");
            }
        }
    }
}

#[test]
fn directories() {
    let bench = Bench::new();
    let bench = std::panic::AssertUnwindSafe(&bench);
    bolero::check!()
        .with_type::<(u8, u8, Vec<Edit>)>()
        .for_each(move |(truth, file, edits)| bench.check(*truth, *file, edits));
}
