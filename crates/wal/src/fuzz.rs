//! Fuzz target: opens a log with damaged files.

use std::sync::Arc;

use bolero::TypeGenerator;
use parking_lot::Mutex;

use super::testing::MemDisk;
use super::*;
use fuzzing::{Edit, edit};

#[derive(Debug, TypeGenerator)]
struct Input {
    records: Vec<Vec<u8>>,
    /// The size at which a new file starts, so that there are several.
    file_bytes: u8,
    /// Whether the log was closed, as opposed to a killed process.
    closed: bool,
    /// Which file is damaged, counted from the last one backwards.
    file: u8,
    edits: Vec<Edit>,
}

/// A log on an in-memory disk. The real directory is only for the lock.
struct Bench {
    runtime: tokio::runtime::Runtime,
    dir: Arc<LockedDir>,
    _root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            dir: Arc::new(LockedDir::acquire(root.path()).unwrap()),
            _root: root,
        }
    }

    fn open(&self, disk: &MemDisk, file_bytes: u64) -> Result<(Log, Vec<Vec<u8>>), LogError> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hook = Arc::clone(&seen);
        let apply: Apply = Box::new(move |_, payload| {
            hook.lock().push(payload.to_vec());
            Ok(())
        });
        let options = LogOptions {
            disk: Arc::new(disk.clone()),
            file_bytes,
            ..LogOptions::default()
        };
        let log = Log::open(Arc::clone(&self.dir), options, apply)?;
        let replayed = seen.lock().clone();
        Ok((log, replayed))
    }

    /// What was recorded, and the disk.
    fn write(&self, input: &Input) -> (Vec<Vec<u8>>, MemDisk) {
        let disk = MemDisk::default();
        let (log, _) = self.open(&disk, 64 + u64::from(input.file_bytes)).unwrap();
        let mut records = input.records.clone();
        records.retain(|record| !record.is_empty());
        for record in &records {
            self.runtime.block_on(log.append(record.clone())).unwrap();
        }
        let killed = disk.kill();
        self.runtime.block_on(log.close()).unwrap();
        (records, if input.closed { disk } else { killed })
    }

    fn check(&self, input: &Input) {
        let (records, disk) = self.write(input);
        let numbers = file_numbers(&disk, self.dir.path()).unwrap();
        let damaged = numbers.len() - 1 - usize::from(input.file) % numbers.len();
        let path = self.dir.path().join(file_name(numbers[damaged]));
        let before = disk.bytes(&path);
        let mut bytes = before.clone();
        edit(&mut bytes, &input.edits);
        let changed = bytes != before;
        let length = bytes.len() as u64;
        disk.put(&path, bytes);

        let (log, replayed) = match self.open(&disk, 1 << 20) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(changed, "{error}");
                match &error {
                    LogError::Damaged {
                        path: named,
                        offset,
                        ..
                    } => {
                        assert_eq!(*named, path);
                        assert!(*offset <= length, "{error}");
                    }
                    LogError::Version { path: named, .. } => assert_eq!(*named, path),
                    _ => panic!("{error}"),
                }
                return;
            }
        };
        // No record that was never written, and no gap: only the end of the last file may be missing, whose last group
        // may not have been acknowledged.
        assert!(records.starts_with(&replayed));
        let is_last = damaged == numbers.len() - 1;
        if !changed || !is_last {
            assert_eq!(replayed, records);
        }
        self.runtime.block_on(log.append(&b"more"[..])).unwrap();
        self.runtime.block_on(log.close()).unwrap();
        let (log, again) = self.open(&disk, 1 << 20).unwrap();
        assert_eq!(again, [replayed, vec![b"more".to_vec()]].concat());
        self.runtime.block_on(log.close()).unwrap();
    }
}

#[test]
fn files() {
    let bench = Bench::new();
    let bench = std::panic::AssertUnwindSafe(&bench);
    bolero::check!()
        .with_type::<Input>()
        .for_each(move |input| bench.check(input));
}
