//! Tests of the local feed: conformance, restarts, trimming of files.

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use domain::Timestamp;
use domain::feed::conformance::check_feed;
use wal::testing::MemDisk;

fn open(root: &TempDir, disk: &MemDisk) -> LocalFeed {
    LocalFeed::open(LocalFeedOptions {
        disk: Arc::new(disk.clone()),
        ..LocalFeedOptions::new(root.path())
    })
    .unwrap()
}

async fn append(feed: &LocalFeed, writer: WriterId, sequence: u64, bytes: usize) -> FeedId {
    let append = Append {
        writer,
        sequence,
        skips: false,
        record: vec![7; bytes],
    };
    feed.append(None, &append).await.unwrap().feed
}

#[tokio::test]
async fn it_is_a_feed() {
    let roots = std::sync::Mutex::new(Vec::new());
    check_feed(async || {
        let root = tempfile::tempdir().unwrap();
        let feed = LocalFeed::open(LocalFeedOptions::new(root.path())).unwrap();
        roots.lock().unwrap().push(root);
        Arc::new(feed) as Arc<dyn ChangeFeed>
    })
    .await;
}

#[tokio::test]
async fn a_restart_after_a_crash_loses_nothing() {
    let (root, disk, writer) = (
        tempfile::tempdir().unwrap(),
        MemDisk::default(),
        WriterId::random(),
    );
    let feed = open(&root, &disk);
    let id = append(&feed, writer, 1, 3).await;
    append(&feed, writer, 2, 3).await;
    let before = feed.read(&Cursor::start(id), 1 << 20).await.unwrap();
    let killed = disk.kill();
    drop(feed);
    let feed = open(&root, &killed);
    let after = feed.read(&Cursor::start(id), 1 << 20).await.unwrap();
    assert_eq!((after.entries, after.next), (before.entries, before.next));
    append(&feed, writer, 2, 3).await;
    assert_eq!(feed.end().await.unwrap(), before.next, "a repeated append");
    append(&feed, writer, 3, 3).await;
    assert_eq!(feed.end().await.unwrap().number, 3);
}

#[tokio::test]
async fn trimmed_files_are_removed_and_numbers_go_on() {
    let (root, disk, writer) = (
        tempfile::tempdir().unwrap(),
        MemDisk::default(),
        WriterId::random(),
    );
    let feed = open(&root, &disk);
    let (mut id, reader) = (None, ReaderId::random());
    let idle = Idle {
        writers: Duration::from_hours(1),
        readers: Duration::from_hours(1),
    };
    for sequence in 1..=40 {
        id = Some(append(&feed, writer, sequence, 1 << 20).await);
        let end = feed.end().await.unwrap();
        feed.trim(reader, &end, idle).await.unwrap();
    }
    let held = feed.log.stats().bytes;
    assert!(held < 3 * FILE_BYTES, "{held} bytes");
    let end = feed.end().await.unwrap();
    drop(feed);
    let feed = open(&root, &disk);
    assert_eq!(feed.end().await.unwrap(), end);
    feed.check(id, writer, 40).await.unwrap();
    append(&feed, writer, 41, 1).await;
    let page = feed.read(&end, 1).await.unwrap();
    assert_eq!(page.entries[0].number, 41);
}

#[tokio::test]
async fn a_feed_without_a_reader_is_bounded() {
    let (root, disk, writer) = (
        tempfile::tempdir().unwrap(),
        MemDisk::default(),
        WriterId::random(),
    );
    let feed = LocalFeed::open(LocalFeedOptions {
        disk: Arc::new(disk.clone()),
        max_bytes: 10 << 20,
        ..LocalFeedOptions::new(root.path())
    });
    let feed = feed.unwrap();
    let mut id = None;
    for sequence in 1..=60 {
        id = Some(append(&feed, writer, sequence, 1 << 20).await);
    }
    assert!(feed.size().await.unwrap().bytes <= 11 << 20);
    assert!(feed.log.stats().bytes < 4 * FILE_BYTES);
    let lost = feed.read(&Cursor::start(id.unwrap()), 1).await;
    assert!(
        matches!(lost, Err(FeedError::Discontinued { trimmed: true, .. })),
        "{lost:?}"
    );
}

#[test]
fn records_survive_being_written() {
    let writer = Writer {
        id: WriterId::random(),
        last: 3,
        seen_at: Timestamp::from_microsecond(1_800_000_000_000_001).unwrap(),
    };
    let start = Record::Start {
        feed: FeedId::random(),
        last: 9,
        token: Token::random(),
        writers: vec![writer],
    };
    let entry = Record::Entry(Entry {
        number: 0,
        token: Token::random(),
        writer: writer.id,
        sequence: 4,
        skips: true,
        record: b"record".to_vec(),
    });
    for record in [start, entry] {
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record));
        for end in 0..26 {
            assert!(Record::decode(&bytes[..end]).is_err(), "{end} bytes");
        }
    }
}
