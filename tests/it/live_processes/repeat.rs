//! Entries of the change feed that come twice, and out of order.

use std::time::Duration;

use domain::Secret;
use domain::feed::{Append, ChangeFeed, Cursor, Idle, ReaderId, WriterId};
use stores::redis::feed::{RedisFeed, RedisFeedOptions};
use stores::redis::{Prefix, RedisServer};

use super::load::expect_users;
use super::names;
use super::site::{Site, seconds};
use crate::support::redis::Redis;
use crate::support::service::poll;

/// Longer than the test takes.
const IDLE: Idle = Idle {
    writers: Duration::from_hours(1),
    readers: Duration::from_hours(1),
};
const PAGE_BYTES: usize = 1 << 20;

/// Entries are appended again under load. Among them are those of users who were erased since, and of some who came again.
pub async fn expect_no_change_by_repeated_entries(site: &Site) {
    let recording = Recording::start(&site.redis).await;
    let url = site.front();
    let visitors = names("visitor", 0..20);
    site.record(&url, &visitors, "visitors").await;
    for (number, visitor) in visitors[..10].iter().enumerate() {
        site.erase(number % 2, visitor).await;
    }
    site.record(&url, &visitors[..5], "visitors").await;
    expect_users(site, "visitors", 15, "live").await;
    seconds(2).await;
    // The entries of the visitors, and some of the load.
    let repeated = recording.repeat_backwards().await;
    assert!(repeated > 12, "{repeated} entries");
    // No comparison with the store was made since.
    expect_users(site, "visitors", 15, "live").await;
}

/// What is appended to the feed from some instant on.
struct Recording {
    feed: RedisFeed,
    from: Cursor,
}

impl Recording {
    /// From now on. The feed keeps what follows, as for a live process that has not read it yet.
    async fn start(redis: &Redis) -> Self {
        let (feed, reader) = (open(redis), ReaderId::random());
        let from = poll(async || {
            // It is not connected yet.
            let from = feed.end().await.ok()?;
            // A live process may have read on, and removed this entry, in between.
            feed.trim(reader, &from, IDLE).await.ok()?;
            Some(from)
        })
        .await;
        Self { feed, from }
    }

    /// Appends every entry again as another writer, the newest first. Returns their number.
    async fn repeat_backwards(&self) -> usize {
        let mut records = self.records().await;
        records.reverse();
        let (writer, entries) = (WriterId::random(), records.len());
        for (sequence, record) in (1..).zip(records) {
            let append = Append {
                writer,
                sequence,
                skips: false,
                record,
            };
            self.feed.append(None, &append).await.unwrap();
        }
        entries
    }

    async fn records(&self) -> Vec<Vec<u8>> {
        let (mut at, mut records) = (self.from, Vec::new());
        loop {
            let page = self.feed.read(&at, PAGE_BYTES).await.unwrap();
            records.extend(page.entries.into_iter().map(|entry| entry.record));
            at = page.next;
            if page.as_of.is_some() {
                return records;
            }
        }
    }
}

fn open(redis: &Redis) -> RedisFeed {
    let server = RedisServer::parse(&Secret::new(redis.url())).unwrap();
    let options = RedisFeedOptions::new(server, Prefix::new("headcount").unwrap());
    RedisFeed::open(RedisFeedOptions {
        // Redis is busy with the load.
        command_timeout: Duration::from_mins(1),
        connect_timeout: Duration::from_mins(1),
        ..options
    })
}
