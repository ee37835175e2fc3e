//! Fuzz targets: opens an embedded store with damaged files, and parses arbitrary records and blocks.

use std::collections::BTreeMap;

use bolero::TypeGenerator;

use super::record;
use super::*;
use domain::BatchBuilder;
use domain::store::conformance::frame;
use fuzzing::{Edit, edit};
use index::{Entry, Fingerprint};
use wal::testing::MemDisk;
use wal::{Disk, Fields, Position};

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
    let counted = store.state.index.segments(present);
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

/// A record with any contents; its checksum is valid.
#[derive(Debug, TypeGenerator)]
enum Record {
    Bytes(Vec<u8>),
    Pairs {
        base: u64,
        groups: Vec<(u8, Vec<(u64, u8)>)>,
    },
    /// Pairs near the present, as in reality.
    Present {
        ago: u16,
        groups: Vec<(u8, Vec<(u64, u8)>)>,
    },
    Forget(u64),
    Trend(Vec<(u8, u64, i64, u64)>),
}

impl Record {
    fn bytes(&self, present: u64) -> Vec<u8> {
        let names = ["a", "b c", "é", "a\"", "\\x"];
        let name = |out: &mut Vec<u8>, number: u8| {
            let name = names[usize::from(number) % names.len()];
            record::push_segment(out, &Segment::new(name).unwrap());
        };
        let pairs = |base: u64, groups: &[(u8, Vec<(u64, u8)>)]| {
            let mut out = vec![record::PAIRS];
            out.extend_from_slice(&base.to_le_bytes());
            out.extend_from_slice(&record::length(groups.len()));
            for (number, entries) in groups {
                name(&mut out, *number);
                out.extend_from_slice(&record::length(entries.len()));
                for (fingerprint, ago) in entries {
                    let slot = Slot::new(base.saturating_sub(u64::from(*ago)));
                    let entry = Entry::new(Fingerprint::new(*fingerprint), slot);
                    out.extend_from_slice(&entry.to_bits().to_le_bytes());
                }
            }
            out
        };
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Pairs { base, groups } => pairs(*base, groups),
            Self::Present { ago, groups } => pairs(present - u64::from(*ago), groups),
            Self::Forget(number) => record::forget(Fingerprint::from_number(*number)),
            Self::Trend(points) => {
                let mut out = vec![record::TREND];
                out.extend_from_slice(&record::length(points.len()));
                for (number, window, at, users) in points {
                    name(&mut out, *number);
                    out.extend_from_slice(&window.to_le_bytes());
                    out.extend_from_slice(&at.to_le_bytes());
                    out.extend_from_slice(&users.to_le_bytes());
                }
                out
            }
        }
    }
}

/// The points of a segment and window.
type Series = (Segment, u64, Vec<trends::Point>);

/// All counts and trends of a state, as of the newest slot.
fn known(state: &State) -> (Vec<(Segment, u64)>, Vec<Series>) {
    let counts = state.index.segments(state.newest());
    let trends = state.trends.lock();
    let mut keys = trends.keys();
    keys.sort();
    let points = keys.into_iter().map(|(segment, window)| {
        let points = trends.points(&segment, window);
        (segment, window, points)
    });
    (counts, points.collect())
}

/// A snapshot restores the state that any records lead to, and no record causes a panic.
#[test]
fn records() {
    bolero::check!()
        .with_type::<Vec<Record>>()
        .for_each(|records| {
            let present = frame(60).resolution().slot_of(now()).number();
            let state = State::new(frame(60));
            let mut scratch = Vec::new();
            for (offset, record) in (0..).zip(records) {
                let at = Position { file: 1, offset };
                let applied = state.apply(at, &record.bytes(present), &mut scratch);
                assert!(applied.is_ok() || matches!(record, Record::Bytes(_)));
            }
            let disk = MemDisk::default();
            let dir = std::path::Path::new("/");
            snapshot::write(&disk, dir, 7, &state, &|| false)
                .unwrap()
                .unwrap();
            let loaded = State::new(frame(60));
            load::load(&disk, dir, 7, &loaded).unwrap();
            assert_eq!(loaded.newest(), state.newest());
            assert_eq!(known(&loaded), known(&state));
        });
}

/// Loads blocks of a snapshot with any contents and valid checksums.
#[test]
fn blocks() {
    bolero::check!()
        .with_type::<(Vec<Vec<u8>>, bool)>()
        .for_each(|(bodies, framed)| {
            let disk = MemDisk::default();
            let path = std::path::Path::new("/").join(snapshot::name(7));
            let mut file = disk.create(&path).unwrap();
            let mut writer = blocks::BlockWriter::new(file.as_mut(), &path);
            if *framed {
                let mut start = vec![snapshot::START];
                start.extend_from_slice(&snapshot::VERSION.to_le_bytes());
                for number in [7_u64, 30_000_000, 1_800_000_000] {
                    start.extend_from_slice(&number.to_le_bytes());
                }
                writer.write(&start).unwrap();
            }
            for body in bodies {
                writer.write(body).unwrap();
            }
            if *framed {
                let mut end = vec![snapshot::END];
                end.extend_from_slice(&writer.blocks().to_le_bytes());
                writer.write(&end).unwrap();
            }
            drop(file);
            let state = State::new(frame(60));
            if load::load(&disk, path.parent().unwrap(), 7, &state).is_ok() {
                known(&state);
            }
            for body in bodies {
                let mut fields = Fields::of(body);
                let _ = record::segment(&mut fields);
                let _ = record::entries(&mut fields, &mut Vec::new());
            }
        });
}
