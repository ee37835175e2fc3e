//! Tests of the writer over a feed in memory that fails and loses entries.

use std::path::Path;

use super::*;
use domain::feed::model::ModelFeed;
use domain::feed::{Cursor, Entry};
use wal::testing::MemDisk;

struct Bench {
    feed: Arc<ModelFeed>,
    root: tempfile::TempDir,
    disk: MemDisk,
}

impl Bench {
    fn new() -> Self {
        Self {
            feed: Arc::default(),
            root: tempfile::tempdir().unwrap(),
            disk: MemDisk::default(),
        }
    }

    fn start(&self, max_kept_bytes: usize) -> (FeedWriter, Supervisor) {
        let supervisor = Supervisor::new(Arc::new(|_, _| ()));
        let owed = OwedLog::open(Arc::new(self.disk.clone()), self.root.path()).unwrap();
        let parts = WriterParts {
            feed: Arc::clone(&self.feed) as Arc<dyn ChangeFeed>,
            owed: Some(owed),
            keep: Duration::from_mins(2),
            max_kept_bytes,
        };
        (FeedWriter::start(parts, &supervisor), supervisor)
    }

    async fn entries(&self) -> Vec<Entry> {
        let start = Cursor::start(self.feed.end().await.unwrap().feed);
        self.feed.read(&start, usize::MAX).await.unwrap().entries
    }

    /// Every record of the feed, in order.
    async fn records(&self) -> Vec<u8> {
        let entries = self.entries().await;
        entries
            .iter()
            .flat_map(|entry| parts_of(&entry.record))
            .collect()
    }

    /// Waits until the feed has these records.
    async fn wait_for(&self, expected: &[u8]) {
        for _ in 0..1_000 {
            if self.records().await == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?}, not {expected:?}", self.records().await);
    }
}

/// The records of one byte that an entry joins.
fn parts_of(mut joined: &[u8]) -> Vec<u8> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = joined.split_first_chunk::<4>() {
        assert_eq!(u32::from_le_bytes(*length), 1);
        parts.push(rest[0]);
        joined = &rest[1..];
    }
    parts
}

#[tokio::test(start_paused = true)]
async fn records_are_appended_in_order_and_waiting_ones_share_an_entry() {
    let bench = Bench::new();
    let (writer, supervisor) = bench.start(1 << 20);
    for record in 0..5 {
        assert_eq!(writer.append(vec![record]).await, Delivery::InFeed);
    }
    let many = (5..105).map(|record| {
        let writer = writer.clone();
        async move { writer.append(vec![record]).await }
    });
    for delivery in futures::future::join_all(many).await {
        assert_eq!(delivery, Delivery::InFeed);
    }
    assert_eq!(bench.records().await, Vec::from_iter(0..105));
    assert!(
        bench.entries().await.len() < 20,
        "{}",
        bench.entries().await.len()
    );
    assert_eq!(writer.status(), WriterStatus::default());
    supervisor.end().await;
    assert_eq!(
        writer.append(vec![0]).await,
        Delivery::Owed,
        "after the end"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_feed_does_not_take_is_owed_and_sent_once() {
    let bench = Bench::new();
    let (writer, _supervisor) = bench.start(1 << 20);
    assert_eq!(writer.append(vec![1]).await, Delivery::InFeed);
    bench.feed.set_loses_responses(true);
    assert_eq!(writer.append(vec![2]).await, Delivery::Owed);
    bench.feed.set_loses_responses(false);
    bench.feed.set_unavailable(true);
    assert_eq!(writer.append(vec![3]).await, Delivery::Owed);
    assert!(writer.append_now(vec![4]).await.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = writer.status();
    assert_eq!(status.owed, 3);
    assert!(status.owed_for.unwrap() >= Duration::from_secs(5));
    bench.feed.set_unavailable(false);
    bench.wait_for(&[1, 2, 3, 4]).await;
    assert_eq!(writer.append(vec![5]).await, Delivery::InFeed);
    assert_eq!(bench.records().await, [1, 2, 3, 4, 5]);
    assert_eq!(writer.status().owed_for, None);
}

#[tokio::test(start_paused = true)]
async fn an_idle_writer_appends_lost_entries_again() {
    let bench = Bench::new();
    let (writer, _supervisor) = bench.start(1 << 20);
    for record in 1..=5 {
        writer.append(vec![record]).await;
    }
    bench.feed.lose_after(2);
    bench.wait_for(&[1, 2, 3, 4, 5]).await;
    assert_eq!(writer.status().resent, 3);
    bench.feed.empty();
    bench.wait_for(&[1, 2, 3, 4, 5]).await;
    bench.feed.empty();
    assert_eq!(writer.append(vec![6]).await, Delivery::InFeed);
    assert_eq!(bench.records().await, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn old_entries_are_not_kept() {
    let bench = Bench::new();
    let (writer, _supervisor) = bench.start(1 << 20);
    writer.append(vec![1]).await;
    tokio::time::sleep(Duration::from_mins(3)).await;
    writer.append(vec![2]).await;
    writer.append(vec![3]).await;
    bench.feed.empty();
    bench.wait_for(&[2, 3]).await;
}

#[tokio::test]
async fn a_restart_sends_what_was_owed() {
    let bench = Bench::new();
    let (writer, supervisor) = bench.start(1 << 20);
    writer.append(vec![1]).await;
    bench.feed.set_unavailable(true);
    for record in 2..=4 {
        assert_eq!(writer.append(vec![record]).await, Delivery::Owed);
    }
    supervisor.end().await;
    let (writer, supervisor) = bench.start(1 << 20);
    assert_eq!(writer.append(vec![5]).await, Delivery::Owed);
    bench.feed.set_unavailable(false);
    bench.wait_for(&[1, 2, 3, 4, 5]).await;
    // Nothing is left for the next process, once the log was cleared.
    assert_eq!(writer.append(vec![6]).await, Delivery::InFeed);
    supervisor.end().await;
    let mut owed = OwedLog::open(Arc::new(bench.disk.clone()), bench.root.path()).unwrap();
    assert_eq!(owed.take_left(), []);
}

#[tokio::test]
async fn a_full_disk_leaves_owed_records_in_memory() {
    let bench = Bench::new();
    let (writer, _supervisor) = bench.start(1 << 20);
    bench.feed.set_unavailable(true);
    bench.disk.set_faults(wal::testing::Faults {
        sync: true,
        ..wal::testing::Faults::default()
    });
    assert_eq!(writer.append(vec![1]).await, Delivery::Owed);
    bench.feed.set_unavailable(false);
    bench.wait_for(&[1]).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_entries_show_as_a_gap() {
    let bench = Bench::new();
    let (writer, _supervisor) = bench.start(100);
    writer.append(vec![1]).await;
    bench.feed.set_unavailable(true);
    for record in 2..100 {
        writer.append(vec![record]).await;
    }
    bench.feed.set_unavailable(false);
    assert!(writer.status().dropped > 50);
    while writer.status().owed > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let entries = bench.entries().await;
    let skipping: Vec<_> = entries.iter().map(|entry| entry.skips).collect();
    assert_eq!(skipping.iter().filter(|skips| **skips).count(), 1);
    assert!(skipping[1], "the first entry after the gap");
    assert_eq!(bench.records().await.last(), Some(&99));
}

#[test]
fn a_foreign_file_in_the_directory_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("00000000000000000001.log"), "hello").unwrap();
    let opened = OwedLog::open(Arc::new(wal::OsDisk), Path::new(root.path()));
    assert!(opened.is_err());
}
