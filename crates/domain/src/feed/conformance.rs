//! The conformance suite of [`ChangeFeed`], for every adapter.
//!
//! Each check gets an empty feed and panics with a description of the first violation.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a conformance check fails by panicking, like a test"
)]

use std::sync::Arc;
use std::time::Duration;

use super::{
    Append, ChangeFeed, Cursor, Entry, FeedError, FeedId, Idle, Page, ReaderId, Token, WriterId,
};
use crate::Timestamp;

/// Enough bytes for every page of a check.
const ALL: usize = 64 << 20;
/// Longer than any check takes.
const LONG: Idle = Idle {
    writers: Duration::from_hours(1),
    readers: Duration::from_hours(1),
};

/// Runs every check that needs no loss.
pub async fn check_feed(new: impl AsyncFn() -> Arc<dyn ChangeFeed>) {
    check_empty(&*new().await).await;
    check_order(&*new().await).await;
    check_repeated_appends(&*new().await).await;
    check_gaps_of_a_writer(&*new().await).await;
    check_writers_are_apart(&*new().await).await;
    check_pages(&*new().await).await;
    check_records_are_opaque(&*new().await).await;
    check_as_of(&*new().await).await;
    check_trim(&*new().await).await;
    check_readers(&*new().await).await;
    check_writers(&*new().await).await;
    check_concurrent_writers(new().await).await;
}

/// Checks that losses are noticed. `lose_after` loses the entries after a number, and `empty` loses everything.
pub async fn check_losses(
    feed: &dyn ChangeFeed,
    lose_after: impl AsyncFn(u64),
    empty: impl AsyncFn(),
) {
    let (writer, other) = (WriterId::random(), WriterId::random());
    let id = append_all(feed, writer, 1..=5).await;
    append_all(feed, other, 1..=1).await;
    let before = all(feed, id).await;
    let read = before.next;
    lose_after(3).await;

    // The writers notice at a check, and at an append.
    assert_eq!(
        feed.check(Some(id), writer, 5).await,
        Err(FeedError::Lost { last: 3 })
    );
    assert_eq!(
        feed.check(Some(id), other, 1).await,
        Err(FeedError::Lost { last: 0 })
    );
    let late = feed.append(Some(id), &entry(writer, 6)).await;
    assert_eq!(late, Err(FeedError::Lost { last: 3 }));

    // A reader at a lost entry notices, before and after its number is used again.
    let expect_discontinued = async || match feed.read(&read, ALL).await {
        Err(FeedError::Discontinued { oldest, trimmed }) => {
            assert_eq!((oldest.feed, oldest.number, trimmed), (id, 0, false));
            oldest
        }
        other => panic!("a reader at a lost entry got {other:?}"),
    };
    expect_discontinued().await;
    append_all(feed, writer, 4..=5).await;
    append_all(feed, other, 1..=1).await;
    let oldest = expect_discontinued().await;
    let page = feed.read(&oldest, ALL).await.unwrap();
    assert_eq!(numbers(&page.entries), [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        page.entries[..3],
        before.entries[..3],
        "what was not lost is unchanged"
    );
    assert_ne!(
        page.server, before.server,
        "the server is another one after a loss"
    );

    // A reader before the loss goes on.
    let third = Cursor {
        feed: id,
        number: 3,
        token: before.entries[2].token,
    };
    let page = feed.read(&third, ALL).await.unwrap();
    assert_eq!(numbers(&page.entries), [4, 5, 6]);

    empty().await;
    let Err(FeedError::Renewed(renewed)) = feed.append(Some(id), &entry(writer, 6)).await else {
        panic!("an append to the former feed must fail");
    };
    assert_ne!(renewed, id);
    assert_eq!(
        feed.check(Some(id), writer, 5).await,
        Err(FeedError::Renewed(renewed))
    );
    assert_eq!(
        feed.read(&read, ALL).await,
        Err(FeedError::Renewed(renewed))
    );
    // In the new feed a writer continues with any number.
    let appended = feed.append(Some(renewed), &entry(writer, 6)).await.unwrap();
    assert_eq!(appended.feed, renewed);
    let page = all(feed, renewed).await;
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].sequence, 6);
}

fn entry(writer: WriterId, sequence: u64) -> Append {
    Append {
        writer,
        sequence,
        skips: false,
        record: format!("{writer} {sequence}").into_bytes(),
    }
}

/// Appends entries of a writer that knows the feed after its first append.
async fn append_all(
    feed: &dyn ChangeFeed,
    writer: WriterId,
    sequences: std::ops::RangeInclusive<u64>,
) -> FeedId {
    let mut known = None;
    for sequence in sequences {
        let appended = feed.append(known, &entry(writer, sequence)).await.unwrap();
        known = Some(appended.feed);
    }
    known.unwrap()
}

async fn all(feed: &dyn ChangeFeed, id: FeedId) -> Page {
    feed.read(&Cursor::start(id), ALL).await.unwrap()
}

fn numbers(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.number).collect()
}

/// An empty feed has an id, an end and no entries.
pub async fn check_empty(feed: &dyn ChangeFeed) {
    let end = feed.end().await.unwrap();
    assert_eq!(end, Cursor::start(end.feed));
    let page = feed.read(&end, ALL).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (0, end));
    assert!(page.as_of.is_some(), "the end of an empty feed is reached");
    assert_eq!(feed.end().await.unwrap(), end, "the feed keeps its id");
    assert_eq!(feed.writers().await.unwrap(), []);
    assert_eq!(feed.size().await.unwrap().entries, 0);
    feed.trim(ReaderId::random(), &end, LONG).await.unwrap();
    let unknown = WriterId::random();
    feed.check(None, unknown, 0).await.unwrap();
    let missing = feed.check(None, unknown, 1).await;
    assert_eq!(missing, Err(FeedError::Lost { last: 0 }));
}

/// Entries of two writers come back in the order of the appends, unchanged.
pub async fn check_order(feed: &dyn ChangeFeed) {
    let writers = [WriterId::random(), WriterId::random()];
    let mut expected = Vec::new();
    for sequence in 1..=20 {
        for writer in writers {
            let append = entry(writer, sequence);
            feed.append(None, &append).await.unwrap();
            expected.push(append);
        }
    }
    let end = feed.end().await.unwrap();
    assert_eq!(end.number, 40);
    let page = all(feed, end.feed).await;
    assert_eq!(page.next, end);
    assert_eq!(numbers(&page.entries), Vec::from_iter(1..=40));
    for (got, sent) in page.entries.iter().zip(&expected) {
        assert_eq!((got.writer, got.sequence), (sent.writer, sent.sequence));
        assert_eq!((&got.record, got.skips), (&sent.record, false));
    }
    let mut tokens: Vec<_> = page.entries.iter().map(|entry| entry.token).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 40, "each entry has a token of its own");
    assert!(feed.size().await.unwrap().entries >= 40);
}

/// A repeated append changes nothing.
pub async fn check_repeated_appends(feed: &dyn ChangeFeed) {
    let writer = WriterId::random();
    let id = append_all(feed, writer, 1..=3).await;
    let before = all(feed, id).await;
    for sequence in 1..=3 {
        let repeated = feed.append(Some(id), &entry(writer, sequence)).await;
        assert_eq!(repeated.unwrap().feed, id);
        feed.check(Some(id), writer, sequence).await.unwrap();
    }
    assert_eq!(all(feed, id).await.entries, before.entries);
    append_all(feed, writer, 4..=4).await;
    assert_eq!(all(feed, id).await.entries.len(), 4);
}

/// A gap in the numbers of a writer is refused, unless the writer accepts it.
pub async fn check_gaps_of_a_writer(feed: &dyn ChangeFeed) {
    let writer = WriterId::random();
    let id = append_all(feed, writer, 1..=2).await;
    let lost = Err(FeedError::Lost { last: 2 });
    assert_eq!(feed.append(Some(id), &entry(writer, 4)).await, lost);
    assert_eq!(feed.check(Some(id), writer, 3).await, lost);
    assert_eq!(all(feed, id).await.entries.len(), 2, "nothing was appended");
    let skipping = Append {
        skips: true,
        ..entry(writer, 9)
    };
    feed.append(Some(id), &skipping).await.unwrap();
    let page = all(feed, id).await;
    assert_eq!(page.entries.len(), 3);
    assert!(page.entries[2].skips, "a reader sees the gap");
    append_all(feed, writer, 10..=10).await;
    // The first entry of an unknown writer may have any number.
    append_all(feed, WriterId::random(), 7..=7).await;
    assert_eq!(all(feed, id).await.entries.len(), 5);
}

/// Writers number their entries independently.
pub async fn check_writers_are_apart(feed: &dyn ChangeFeed) {
    let (one, two) = (WriterId::random(), WriterId::random());
    let id = append_all(feed, one, 1..=3).await;
    append_all(feed, two, 1..=2).await;
    feed.check(Some(id), one, 3).await.unwrap();
    let lost = feed.check(Some(id), two, 3).await;
    assert_eq!(lost, Err(FeedError::Lost { last: 2 }));
}

/// A reader gets every entry once, page by page.
pub async fn check_pages(feed: &dyn ChangeFeed) {
    let writer = WriterId::random();
    let mut id = None;
    for sequence in 1..=100 {
        let append = Append {
            record: vec![7; 1_000],
            ..entry(writer, sequence)
        };
        id = Some(feed.append(id, &append).await.unwrap().feed);
    }
    for max_bytes in [0, 1, 999, 2_500, 30_000, ALL] {
        let (mut cursor, mut got) = (Cursor::start(id.unwrap()), Vec::new());
        loop {
            let page = feed.read(&cursor, max_bytes).await.unwrap();
            got.extend(numbers(&page.entries));
            cursor = page.next;
            if page.as_of.is_some() {
                break;
            }
            assert!(!page.entries.is_empty(), "each page has an entry");
            let bytes: usize = page.entries.iter().map(|entry| entry.record.len()).sum();
            assert!(
                bytes <= max_bytes + 2_000,
                "{bytes} bytes exceed {max_bytes} by more than an entry or two"
            );
        }
        assert_eq!(
            got,
            Vec::from_iter(1..=100),
            "with {max_bytes} bytes a page"
        );
    }
}

/// Records come back byte by byte, the empty one and large ones included.
pub async fn check_records_are_opaque(feed: &dyn ChangeFeed) {
    let writer = WriterId::random();
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let records = [Vec::new(), every_byte, b"\r\n*1\r\n$-1\r\n".to_vec(), large];
    let mut id = None;
    for (sequence, record) in (1..).zip(&records) {
        let append = Append {
            record: record.clone(),
            ..entry(writer, sequence)
        };
        id = Some(feed.append(id, &append).await.unwrap().feed);
    }
    let page = all(feed, id.unwrap()).await;
    let got: Vec<_> = page.entries.into_iter().map(|entry| entry.record).collect();
    assert!(got == records, "a record changed");
}

/// The clock of the feed orders appends and reads.
pub async fn check_as_of(feed: &dyn ChangeFeed) {
    let writer = WriterId::random();
    let (mut cursor, mut known) = (feed.end().await.unwrap(), None);
    let mut known_at = Timestamp::MIN;
    for sequence in 1..=20 {
        let appended = feed.append(known, &entry(writer, sequence)).await.unwrap();
        known = Some(appended.feed);
        let page = feed.read(&cursor, ALL).await.unwrap();
        let as_of = page.as_of.unwrap();
        assert!(as_of >= appended.at, "the read came after the append");
        assert_eq!(page.entries.len(), 1);
        cursor = page.next;
        let next = feed.append(known, &entry(writer, sequence)).await.unwrap();
        assert!(next.at >= as_of, "this append came after the read");
        known_at = next.at;
    }
    let partial = feed.read(&Cursor::start(cursor.feed), 1).await.unwrap();
    assert_eq!(partial.as_of, None, "the end is not reached");
    assert!(partial.now >= known_at);
}

/// Trimmed entries are gone, and a reader that still needed them notices.
pub async fn check_trim(feed: &dyn ChangeFeed) {
    let writer = WriterId::random();
    let id = append_all(feed, writer, 1..=1_000).await;
    let before = all(feed, id).await;
    let reader = ReaderId::random();
    feed.trim(reader, &position(&before, 900), LONG)
        .await
        .unwrap();
    let start = Cursor::start(id);
    let Err(FeedError::Discontinued { oldest, trimmed }) = feed.read(&start, ALL).await else {
        panic!("a reader of trimmed entries must notice");
    };
    assert!(trimmed);
    assert!(
        (800..=900).contains(&oldest.number),
        "trimmed up to {}",
        oldest.number
    );
    let page = feed.read(&oldest, ALL).await.unwrap();
    assert_eq!(
        numbers(&page.entries),
        Vec::from_iter(oldest.number + 1..=1_000)
    );
    assert_eq!(page.next, before.next);
    assert!(feed.size().await.unwrap().entries <= 200);
    // Numbers go on after everything was trimmed.
    feed.trim(reader, &before.next, LONG).await.unwrap();
    append_all(feed, writer, 1_001..=1_001).await;
    let page = feed.read(&before.next, ALL).await.unwrap();
    assert_eq!(numbers(&page.entries), [1_001]);
    assert_eq!(feed.end().await.unwrap(), page.next);
}

/// Entries stay until every reader has them, or the readers that lack them have been idle for long.
pub async fn check_readers(feed: &dyn ChangeFeed) {
    let id = append_all(feed, WriterId::random(), 1..=1_000).await;
    let before = all(feed, id).await;
    let (slow, quick) = (ReaderId::random(), ReaderId::random());
    let trim = async |reader, at: &Cursor| feed.trim(reader, at, LONG).await.unwrap();
    trim(slow, &position(&before, 100)).await;
    trim(quick, &before.next).await;
    let oldest = match feed.read(&Cursor::start(id), ALL).await {
        Err(FeedError::Discontinued { oldest, .. }) => oldest,
        other => panic!("the first entries must be gone: {other:?}"),
    };
    assert!(oldest.number <= 100);
    let page = feed.read(&oldest, ALL).await.unwrap();
    assert!(
        numbers(&page.entries).contains(&101),
        "the slow reader needs it"
    );
    trim(slow, &before.next).await;
    assert!(feed.size().await.unwrap().entries <= 200);

    // A position that the feed does not have removes nothing.
    let held = feed.size().await.unwrap();
    let lost = Cursor {
        token: Token::random(),
        ..before.next
    };
    let trimmed = feed.trim(quick, &lost, LONG).await;
    assert!(matches!(trimmed, Err(FeedError::Discontinued { .. })));
    let other = Cursor::start(FeedId::random());
    let trimmed = feed.trim(quick, &other, LONG).await;
    assert_eq!(trimmed, Err(FeedError::Renewed(id)));
    assert_eq!(feed.size().await.unwrap(), held);

    // A reader that has ended.
    append_all(feed, WriterId::random(), 1..=1_000).await;
    let none = Idle {
        readers: Duration::ZERO,
        ..LONG
    };
    let end = feed.end().await.unwrap();
    feed.trim(quick, &end, none).await.unwrap();
    assert!(feed.size().await.unwrap().entries <= 200);
}

/// The position after the entry with this number.
fn position(page: &Page, number: u64) -> Cursor {
    let entry = page.entries.iter().find(|entry| entry.number == number);
    Cursor {
        number,
        token: entry.unwrap().token,
        ..page.next
    }
}

/// The feed knows its writers until they have been idle for long.
pub async fn check_writers(feed: &dyn ChangeFeed) {
    let (one, two) = (WriterId::random(), WriterId::random());
    let id = append_all(feed, one, 1..=3).await;
    append_all(feed, two, 1..=1).await;
    let known = |writers: Vec<super::Writer>| {
        let mut known: Vec<_> = writers.iter().map(|w| (w.id, w.last)).collect();
        known.sort_unstable();
        known
    };
    let mut both = [(one, 3), (two, 1)];
    both.sort_unstable();
    assert_eq!(known(feed.writers().await.unwrap()), both);
    tokio::time::sleep(Duration::from_millis(60)).await;
    feed.check(Some(id), one, 3).await.unwrap();
    let reader = ReaderId::random();
    let idle = |millis| Idle {
        writers: Duration::from_millis(millis),
        ..LONG
    };
    let start = Cursor::start(id);
    feed.trim(reader, &start, idle(50)).await.unwrap();
    let left = feed.writers().await.unwrap();
    // The clock of a model does not follow real time.
    assert!(left.iter().any(|writer| writer.id == one));
    feed.trim(reader, &start, idle(0)).await.unwrap();
    assert_eq!(feed.writers().await.unwrap(), []);
    // A removed writer is new again.
    append_all(feed, one, 4..=4).await;
    assert_eq!(known(feed.writers().await.unwrap()), [(one, 4)]);
}

/// Concurrent writers lose nothing, and each stays in order.
pub async fn check_concurrent_writers(feed: Arc<dyn ChangeFeed>) {
    let writers: Vec<WriterId> = (0..8).map(|_| WriterId::random()).collect();
    let tasks = writers.iter().map(|&writer| {
        let feed = Arc::clone(&feed);
        tokio::spawn(async move { append_all(&*feed, writer, 1..=50).await })
    });
    let mut id = None;
    for task in tasks.collect::<Vec<_>>() {
        id = Some(task.await.unwrap());
    }
    let page = all(&*feed, id.unwrap()).await;
    assert_eq!(numbers(&page.entries), Vec::from_iter(1..=400));
    for writer in writers {
        let own = page.entries.iter().filter(|entry| entry.writer == writer);
        let own: Vec<_> = own.map(|entry| entry.sequence).collect();
        assert_eq!(own, Vec::from_iter(1..=50));
    }
}
