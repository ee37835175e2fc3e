//! Tests of the log: restarts, torn tails, damage, full and failing disks, crashes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;

use super::testing::{Faults, MemDisk};
use super::*;

/// The records that the hook received.
type Seen = Arc<Mutex<Vec<(Position, Vec<u8>)>>>;

/// A log on an in-memory disk. The real directory is only for the lock.
struct Bench {
    root: TempDir,
    disk: MemDisk,
    options: LogOptions,
}

impl Bench {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            disk: MemDisk::default(),
            options: LogOptions::default(),
        }
    }

    fn dir(&self) -> &Path {
        self.root.path()
    }

    fn file(&self, number: u64) -> PathBuf {
        self.dir().join(file_name(number))
    }

    fn open(&self) -> Result<(Log, Seen), LogError> {
        let dir = Arc::new(LockedDir::acquire(self.dir())?);
        let seen = Seen::default();
        let mut options = self.options.clone();
        options.disk = Arc::new(self.disk.clone());
        let hook = Arc::clone(&seen);
        let apply: Apply = Box::new(move |at, payload| {
            if payload == b"poison" {
                return Err("poison".to_owned());
            }
            hook.lock().push((at, payload.to_vec()));
            Ok(())
        });
        Ok((Log::open(dir, options, apply)?, seen))
    }

    /// Replays, closes, and returns what was replayed.
    fn replay(&self) -> Result<(Vec<Vec<u8>>, Recovery), LogError> {
        let (log, seen) = self.open()?;
        let records = payloads(&seen);
        Ok((records, log.recovery().clone()))
    }
}

fn payloads(seen: &Seen) -> Vec<Vec<u8>> {
    seen.lock()
        .iter()
        .map(|(_, payload)| payload.clone())
        .collect()
}

/// Three groups of one record each, on a disk whose process was killed. Returns where the groups start.
async fn three_groups(bench: &mut Bench) -> Vec<u64> {
    let (log, _) = bench.open().unwrap();
    let mut starts = Vec::new();
    for payload in ["first", "second one", "third"] {
        let at = log.append(payload).await.unwrap();
        starts.push(at.offset - 12);
    }
    bench.disk = bench.disk.kill();
    starts
}

#[tokio::test]
async fn what_was_appended_is_there_after_a_restart() {
    let bench = Bench::new();
    let (log, seen) = bench.open().unwrap();
    let appends = (0..100).map(|i| log.append(format!("record {i}")));
    let mut positions: Vec<_> = futures::future::try_join_all(appends).await.unwrap();
    // Concurrent appends have no defined order.
    positions.sort_unstable();
    log.close().await.unwrap();
    assert!(matches!(log.append("x").await, Err(LogError::Closed)));
    drop(log);

    let live = seen.lock().clone();
    assert_eq!(
        live.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        positions
    );
    let (log, seen) = bench.open().unwrap();
    assert_eq!(
        *seen.lock(),
        live,
        "replay and live application are the same"
    );
    assert_eq!(log.recovery().records, 100);
    assert_eq!(log.recovery().torn, None);
}

#[tokio::test]
async fn dropping_the_log_keeps_what_was_asked() {
    let bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    {
        // Polled once, so that the request is with the writer; then given up.
        let mut given_up = std::pin::pin!(log.append("kept"));
        let _ = futures::poll!(given_up.as_mut());
    }
    drop(log);
    assert_eq!(bench.replay().unwrap().0, [b"kept"]);
}

#[tokio::test]
async fn a_directory_has_one_log() {
    let bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    assert!(matches!(bench.open(), Err(LogError::Locked { .. })));
    drop(log);
    bench.open().unwrap();
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_dropped() {
    let mut bench = Bench::new();
    let starts = three_groups(&mut bench).await;
    let whole = bench.disk.bytes(&bench.file(1));
    let all = [b"first".to_vec(), b"second one".to_vec(), b"third".to_vec()];
    let ends = [starts[1], starts[2], whole.len() as u64];
    for length in starts[0]..=whole.len() as u64 {
        bench
            .disk
            .put(&bench.file(1), whole[..length as usize].to_vec());
        let (records, recovery) = bench.replay().unwrap();
        let kept = ends.iter().filter(|end| **end <= length).count();
        assert_eq!(records, all[..kept], "cut at {length}");
        let start = if kept == 0 { starts[0] } else { ends[kept - 1] };
        let torn = (length > start).then(|| (start, length - start));
        assert_eq!(recovery.torn.map(|torn| (torn.offset, torn.bytes)), torn);
        // The truncated tail stays truncated, and later records are kept.
        let (log, _) = bench.open().unwrap();
        log.append("next").await.unwrap();
        drop(log);
        let (records, recovery) = bench.replay().unwrap();
        assert_eq!(records.len(), kept + 1);
        assert_eq!(recovery.torn, None);
    }
}

#[tokio::test]
async fn a_last_group_with_holes_or_zeros_is_torn() {
    let mut bench = Bench::new();
    let starts = three_groups(&mut bench).await;
    let whole = bench.disk.bytes(&bench.file(1));
    for at in starts[2] as usize..whole.len() {
        for bit in 0..8 {
            let mut torn = whole.clone();
            torn[at] ^= 1 << bit;
            bench.disk.put(&bench.file(1), torn);
            let (records, recovery) = bench.replay().unwrap();
            assert_eq!(records.len(), 2);
            assert_eq!(recovery.torn.unwrap().offset, starts[2]);
        }
    }
    let mut zeros = whole[..starts[2] as usize].to_vec();
    zeros.resize(zeros.len() + 100_000, 0);
    bench.disk.put(&bench.file(1), zeros);
    assert_eq!(bench.replay().unwrap().0.len(), 2);
}

#[tokio::test]
async fn any_flipped_bit_before_the_last_group_is_refused() {
    let mut bench = Bench::new();
    let starts = three_groups(&mut bench).await;
    let whole = bench.disk.bytes(&bench.file(1));
    for at in 0..starts[2] {
        let mut damaged = whole.clone();
        damaged[at as usize] ^= 1 << (at % 8);
        bench.disk.put(&bench.file(1), damaged.clone());
        let error = bench.replay().unwrap_err();
        let start = starts
            .iter()
            .rfind(|start| **start <= at)
            .copied()
            .unwrap_or(0);
        match &error {
            LogError::Damaged { path, offset, .. } => {
                assert_eq!((path, *offset), (&bench.file(1), start), "byte {at}");
            }
            LogError::Version { path, .. } => assert_eq!(*path, bench.file(1)),
            other => panic!("byte {at}: {other}"),
        }
        assert!(error.to_string().contains(bench.file(1).to_str().unwrap()));
        assert_eq!(
            bench.disk.bytes(&bench.file(1)),
            damaged,
            "nothing is changed"
        );
    }
}

#[tokio::test]
async fn a_closed_log_is_sealed_to_its_last_byte() {
    let mut bench = Bench::new();
    let starts = three_groups(&mut bench).await;
    let (log, _) = bench.open().unwrap();
    log.close().await.unwrap();
    drop(log);
    let sealed = bench.disk.bytes(&bench.file(1));
    for at in starts[0] as usize..sealed.len() - 12 {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        bench.disk.put(&bench.file(1), damaged);
        assert!(
            matches!(bench.replay(), Err(LogError::Damaged { .. })),
            "byte {at}"
        );
    }
}

#[tokio::test]
async fn more_bytes_than_a_group_can_have_are_no_torn_tail() {
    let mut bench = Bench::new();
    let starts = three_groups(&mut bench).await;
    let mut long = bench.disk.bytes(&bench.file(1));
    long.truncate(starts[2] as usize);
    long.resize(long.len() + format::MAX_GROUP as usize + 1, 0);
    bench.disk.put(&bench.file(1), long);
    assert!(matches!(bench.replay(), Err(LogError::Damaged { offset, .. }) if offset == starts[2]));
}

#[tokio::test]
async fn a_payload_that_looks_like_a_group_is_none() {
    let mut bench = Bench::new();
    three_groups(&mut bench).await;
    let copy = bench.disk.bytes(&bench.file(1));
    let (log, _) = bench.open().unwrap();
    let at = log.append(copy).await.unwrap();
    bench.disk = bench.disk.kill();
    drop(log);
    // The copied groups are complete behind the torn header of the last group.
    let mut torn = bench.disk.bytes(&bench.file(1));
    torn[at.offset as usize - 12] ^= 1;
    bench.disk.put(&bench.file(1), torn);
    let (records, recovery) = bench.replay().unwrap();
    assert_eq!(records.len(), 3);
    assert!(recovery.torn.is_some());
}

#[tokio::test]
async fn files_follow_each_other_without_gaps() {
    let mut bench = Bench::new();
    bench.options.file_bytes = 100;
    let (log, _) = bench.open().unwrap();
    for i in 0..20 {
        log.append(format!("record number {i}")).await.unwrap();
    }
    assert!(log.stats().files > 3);
    let last = log.rotate().await.unwrap();
    assert_eq!(
        log.rotate().await.unwrap(),
        last,
        "an empty file is not followed by another"
    );
    drop(log);
    assert_eq!(bench.replay().unwrap().0.len(), 20);

    // An invalid end of a file that is not the last is damage.
    let whole = bench.disk.bytes(&bench.file(2));
    bench
        .disk
        .put(&bench.file(2), whole[..whole.len() - 1].to_vec());
    let error = bench.replay().unwrap_err();
    assert!(matches!(&error, LogError::Damaged { path, .. } if *path == bench.file(2)));
    let error = read_file(&bench.disk, bench.dir(), 2, |_, _| Ok(())).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }));
    bench.disk.put(&bench.file(2), whole);
    assert!(read_file(&bench.disk, bench.dir(), 2, |_, _| Ok(())).unwrap() > 0);

    bench.disk.remove(&bench.file(2)).unwrap();
    let error = bench.replay().unwrap_err();
    assert!(matches!(&error, LogError::Missing { path } if *path == bench.file(2)));

    // From a given file on.
    bench.options.start = Start::At(3);
    assert!(bench.replay().unwrap().0.len() < 20);
    bench.options.start = Start::At(last + 1);
    assert!(matches!(bench.replay(), Err(LogError::Missing { .. })));
}

#[tokio::test]
async fn a_seal_that_a_failed_sync_lost_is_written_again() {
    let mut bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    log.append("before").await.unwrap();
    bench.disk.set_faults(Faults {
        sync: true,
        ..Faults::default()
    });
    log.rotate().await.unwrap_err();
    bench.disk.set_faults(Faults::default());
    bench.disk = bench.disk.kill();
    drop(log);
    let (log, _) = bench.open().unwrap();
    log.append("after").await.unwrap();
    for seed in 0..20 {
        let crashed = Bench::new();
        let bytes = bench.disk.crash(seed).bytes(&bench.file(1));
        crashed.disk.put(&crashed.file(1), bytes);
        assert_eq!(crashed.replay().unwrap().0.len(), 2);
    }
}

#[tokio::test]
async fn a_file_that_another_follows_ends_with_a_seal() {
    let mut bench = Bench::new();
    let ends = three_groups(&mut bench).await;
    let (log, _) = bench.open().unwrap();
    log.append("four").await.unwrap();
    assert_eq!(log.rotate().await.unwrap(), 2);
    log.append("five").await.unwrap();
    drop(log);
    let whole = bench.disk.bytes(&bench.file(1));
    assert_eq!(bench.replay().unwrap().0.len(), 5);

    // A loss before the end of the log is always detected, even of whole groups.
    let header = super::format::FILE_HEADER;
    let before_seal = whole.len() - super::format::GROUP_HEADER;
    for end in ends
        .iter()
        .map(|end| *end as usize)
        .chain([header, before_seal])
    {
        bench.disk.put(&bench.file(1), whole[..end].to_vec());
        let error = bench.replay().unwrap_err();
        let expected = bench.file(1);
        match error {
            LogError::Damaged { path, offset, .. } => {
                assert_eq!((path, offset), (expected, end as u64));
            }
            other => panic!("{other}"),
        }
    }

    // Files of version 1 had no seal there.
    let id = super::format::FileId::decode(&whole, 1).unwrap();
    let mut former = whole[..before_seal].to_vec();
    former[..header].copy_from_slice(&super::format::FileId { version: 1, ..id }.encode());
    bench.disk.put(&bench.file(1), former);
    assert_eq!(bench.replay().unwrap().0.len(), 5);
}

#[tokio::test]
async fn files_that_are_not_needed_go_and_numbers_go_on() {
    let bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    log.append("old").await.unwrap();
    let number = log.rotate().await.unwrap();
    log.append("new").await.unwrap();
    assert_eq!(log.oldest_file(), 1);
    assert!(log.remove_before(number).unwrap() > 0);
    assert_eq!(
        log.remove_before(u64::MAX).unwrap(),
        0,
        "the last file stays"
    );
    assert_eq!((log.stats().files, log.oldest_file()), (1, 2));
    assert_eq!(log.stats().bytes, log.bytes_from(2));
    drop(log);
    assert_eq!(bench.replay().unwrap().0, [b"new"]);
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_by_itself() {
    let bench = Bench::new();
    let (log, seen) = bench.open().unwrap();
    log.append("before").await.unwrap();
    for room in 0..30 {
        bench.disk.set_faults(Faults {
            room: Some(room),
            ..Faults::default()
        });
        let refused = log.append("does not fit at all").await;
        assert!(matches!(refused, Err(LogError::Full { .. })), "{refused:?}");
        log.check().unwrap();
        // A crash now must not restore a part of it.
        let copy = Bench {
            disk: bench.disk.crash(room),
            ..Bench::new()
        };
        let path = copy.file(1);
        copy.disk.put(&path, bench.disk.bytes(&bench.file(1)));
        assert_eq!(copy.replay().unwrap().0, [b"before"]);
    }
    bench.disk.set_faults(Faults {
        longest_write: Some(3),
        ..Faults::default()
    });
    log.append("after").await.unwrap();
    assert_eq!(payloads(&seen), [b"before".to_vec(), b"after".to_vec()]);
    drop(log);
    assert_eq!(bench.replay().unwrap().0.len(), 2);
}

#[tokio::test]
async fn a_full_disk_stops_a_new_file_and_nothing_else() {
    let bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    log.append("one").await.unwrap();
    bench.disk.set_faults(Faults {
        room: Some(10),
        ..Faults::default()
    });
    assert!(matches!(log.rotate().await, Err(LogError::Full { .. })));
    bench.disk.set_faults(Faults::default());
    log.append("two").await.unwrap();
    assert_eq!(log.rotate().await.unwrap(), 2);
    log.append("three").await.unwrap();
    drop(log);
    assert_eq!(bench.replay().unwrap().0.len(), 3);
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_log_from_opening() {
    let mut bench = Bench::new();
    three_groups(&mut bench).await;
    let whole = bench.disk.bytes(&bench.file(1)).len() as u64;
    // Space to rewrite the last group in place, as on a real disk, but not for a seal.
    bench.disk.set_faults(Faults {
        room: Some(12 + 4 + 5),
        ..Faults::default()
    });
    let (log, seen) = bench.open().unwrap();
    assert_eq!(seen.lock().len(), 3);
    assert_eq!(bench.disk.bytes(&bench.file(1)).len() as u64, whole);
    assert!(matches!(log.append("x").await, Err(LogError::Full { .. })));
}

#[tokio::test]
async fn a_failed_write_is_taken_back() {
    let bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    bench.disk.set_faults(Faults {
        write: true,
        ..Faults::default()
    });
    assert!(matches!(log.append("lost").await, Err(LogError::Io { .. })));
    bench.disk.set_faults(Faults::default());
    log.append("kept").await.unwrap();
    drop(log);
    assert_eq!(bench.replay().unwrap().0, [b"kept"]);
}

#[tokio::test]
async fn a_failed_sync_ends_writing_for_good() {
    let faults = [
        Faults {
            sync: true,
            ..Faults::default()
        },
        Faults {
            room: Some(5),
            truncate: true,
            ..Faults::default()
        },
    ];
    for faults in faults {
        let bench = Bench::new();
        let (log, seen) = bench.open().unwrap();
        log.append("before").await.unwrap();
        bench.disk.set_faults(faults);
        assert!(matches!(
            log.append("unknown").await,
            Err(LogError::Failed(_))
        ));
        bench.disk.set_faults(Faults::default());
        let later = log.append("later").await.unwrap_err();
        assert!(later.to_string().contains("writing has stopped"), "{later}");
        assert!(matches!(log.rotate().await, Err(LogError::Failed(_))));
        assert!(matches!(log.check(), Err(LogError::Failed(_))));
        assert_eq!(
            payloads(&seen),
            [b"before"],
            "what is not durable is not applied"
        );
        log.close().await.unwrap();
        drop(log);
        let records = bench.replay().unwrap().0;
        assert_eq!(records[0], b"before");
    }
}

#[tokio::test]
async fn a_disk_that_takes_nothing_refuses_and_recovers_by_itself() {
    let bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    log.append("before").await.unwrap();
    // Like a file system that has become read-only.
    bench.disk.set_faults(Faults {
        write: true,
        truncate: true,
        ..Faults::default()
    });
    for _ in 0..3 {
        let refused = log.append("refused").await;
        assert!(matches!(refused, Err(LogError::Io { .. })), "{refused:?}");
        log.check().unwrap();
    }
    bench.disk.set_faults(Faults::default());
    log.append("after").await.unwrap();
    drop(log);
    assert_eq!(bench.replay().unwrap().0, [b"before".as_slice(), b"after"]);
}

#[tokio::test]
async fn what_a_failed_sync_lost_is_written_again_before_it_is_vouched_for() {
    let mut bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    log.append("before").await.unwrap();
    bench.disk.set_faults(Faults {
        sync: true,
        ..Faults::default()
    });
    log.append("unknown").await.unwrap_err();
    bench.disk.set_faults(Faults::default());
    // The process ends but the machine keeps running: the next process reads data that never reached the disk.
    bench.disk = bench.disk.kill();
    drop(log);
    let (log, seen) = bench.open().unwrap();
    assert_eq!(payloads(&seen), [b"before".to_vec(), b"unknown".to_vec()]);
    log.append("after").await.unwrap();
    for seed in 0..20 {
        let crashed = Bench {
            root: tempfile::tempdir().unwrap(),
            disk: MemDisk::default(),
            options: LogOptions::default(),
        };
        let disk = bench.disk.crash(seed);
        let bytes = disk.bytes(&bench.file(1));
        crashed.disk.put(&crashed.file(1), bytes);
        assert_eq!(crashed.replay().unwrap().0.len(), 3);
    }
}

#[tokio::test]
async fn a_failed_sync_of_the_directory_ends_writing_for_good() {
    let bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    log.append("before").await.unwrap();
    bench.disk.set_faults(Faults {
        sync_dir: true,
        ..Faults::default()
    });
    assert!(matches!(log.rotate().await, Err(LogError::Failed(_))));
    assert!(matches!(
        log.append("later").await,
        Err(LogError::Failed(_))
    ));
}

#[tokio::test]
async fn what_the_hook_refuses_is_an_error_live_and_damage_at_replay() {
    let bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    let at = log.append("good").await.unwrap();
    assert!(matches!(
        log.append("poison").await,
        Err(LogError::Failed(_))
    ));
    assert!(matches!(log.append("good").await, Err(LogError::Failed(_))));
    drop(log);
    let error = bench.replay().unwrap_err();
    assert!(matches!(error, LogError::Damaged { offset, .. } if offset > at.offset));
}

#[tokio::test]
async fn sizes_have_limits() {
    let bench = Bench::new();
    let (log, _) = bench.open().unwrap();
    assert!(matches!(log.append("").await, Err(LogError::Size(0))));
    let long = vec![1; MAX_PAYLOAD + 1];
    assert!(matches!(log.append(long).await, Err(LogError::Size(_))));
    log.append(vec![1; MAX_PAYLOAD]).await.unwrap();
    drop(log);
    assert_eq!(bench.replay().unwrap().0[0].len(), MAX_PAYLOAD);
}

#[tokio::test]
async fn a_newer_format_is_told_from_damage() {
    let mut bench = Bench::new();
    three_groups(&mut bench).await;
    let mut newer = bench.disk.bytes(&bench.file(1));
    newer[8] = 3;
    bench.disk.put(&bench.file(1), newer);
    assert!(matches!(
        bench.replay(),
        Err(LogError::Version { version: 3, .. })
    ));
}

#[tokio::test]
async fn on_real_files() {
    let root = tempfile::tempdir().unwrap();
    let open = || {
        let dir = Arc::new(LockedDir::acquire(root.path()).unwrap());
        let seen = Seen::default();
        let hook = Arc::clone(&seen);
        let apply: Apply = Box::new(move |at, payload| {
            hook.lock().push((at, payload.to_vec()));
            Ok(())
        });
        (Log::open(dir, LogOptions::default(), apply).unwrap(), seen)
    };
    let (log, _) = open();
    log.append("one").await.unwrap();
    log.rotate().await.unwrap();
    log.append("two").await.unwrap();
    drop(log);
    let last = root.path().join(file_name(2));
    let length = std::fs::metadata(&last).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&last).unwrap();
    file.set_len(length - 13).unwrap();
    let (log, seen) = open();
    assert_eq!(payloads(&seen), [b"one"]);
    assert_eq!(log.recovery().torn.as_ref().unwrap().path, last);
    log.remove_before(2).unwrap();
    assert!(!root.path().join(file_name(1)).exists());
}

/// An action of a process before it dies.
#[derive(Debug, Clone)]
enum Step {
    /// Concurrent appends: their number and length.
    Append(usize, usize),
    Rotate,
    /// Limits the free space to this many bytes.
    Fill(u64),
    FailSync,
    Heal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..6_usize, 1..200_usize).prop_map(|(count, length)| Step::Append(count, length)),
        2 => Just(Step::Rotate),
        1 => (0..600_u64).prop_map(Step::Fill),
        1 => Just(Step::FailSync),
        2 => Just(Step::Heal),
    ];
    proptest::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// After any actions and any number of crashes, the log holds each acknowledged record once and in order, and no
    /// record that was never appended.
    #[test]
    fn every_acknowledged_record_survives_every_crash(
        lives in proptest::collection::vec((steps(), any::<u64>(), any::<bool>()), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut bench = Bench::new();
        bench.options.file_bytes = 1000;
        bench.options.group_bytes = 300;
        let mut acknowledged: Vec<u64> = Vec::new();
        let mut attempted = 0_u64;
        for (steps, seed, in_flight) in lives {
            let (log, _) = bench.open().unwrap();
            runtime.block_on(async {
                for step in steps {
                    match step {
                        Step::Append(count, length) => {
                            let appends = (0..count).map(|_| {
                                attempted += 1;
                                let id = attempted;
                                let mut payload = id.to_le_bytes().to_vec();
                                payload.resize(8 + length, id as u8);
                                let append = log.append(payload);
                                async move { (id, append.await) }
                            });
                            let appends: Vec<_> = appends.collect();
                            for (id, answer) in futures::future::join_all(appends).await {
                                if answer.is_ok() {
                                    acknowledged.push(id);
                                }
                            }
                        }
                        Step::Rotate => {
                            let _ = log.rotate().await;
                        }
                        Step::Fill(room) => {
                            bench.disk.set_faults(Faults { room: Some(room), ..Faults::default() });
                        }
                        Step::FailSync => {
                            bench.disk.set_faults(Faults { sync: true, ..Faults::default() });
                        }
                        Step::Heal => bench.disk.set_faults(Faults::default()),
                    }
                }
                if in_flight {
                    attempted += 1;
                    let mut payload = attempted.to_le_bytes().to_vec();
                    payload.resize(150, attempted as u8);
                    // After a failed sync the group is written but not durable.
                    bench.disk.set_faults(Faults { sync: true, ..Faults::default() });
                    let _ = log.append(payload).await;
                }
            });
            // Sometimes only the process dies.
            bench.disk = match seed % 4 {
                0 => bench.disk.kill(),
                _ => bench.disk.crash(seed),
            };
            drop(log);
            let (log, seen) = bench.open().unwrap();
            drop(log);
            let found: Vec<u64> = payloads(&seen)
                .iter()
                .map(|payload| {
                    let id = u64::from_le_bytes(payload[..8].try_into().unwrap());
                    assert!(payload[8..].iter().all(|byte| *byte == id as u8));
                    id
                })
                .collect();
            prop_assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
            prop_assert!(found.iter().all(|id| *id <= attempted));
            for id in &acknowledged {
                prop_assert!(found.binary_search(id).is_ok(), "{id} is lost: {found:?}");
            }
            // All replayed records are durable from now on, even those that were not acknowledged.
            acknowledged = found;
        }
    }
}
