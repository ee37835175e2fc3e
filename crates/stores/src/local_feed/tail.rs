//! The entries of a feed that were not trimmed, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::codec::Record;
use domain::Timestamp;
use domain::feed::{
    Cursor, Entry, FeedError, FeedId, FeedSize, Idle, Page, ReaderId, Token, Writer, WriterId,
};

#[derive(Debug, Default)]
pub(super) struct Tail {
    feed: Option<FeedId>,
    /// The number and the token of the newest entry.
    last: (u64, u64),
    /// Without gaps. Each with the number of its log file.
    entries: VecDeque<(Entry, u64)>,
    bytes: u64,
    writers: BTreeMap<WriterId, (u64, Timestamp)>,
    readers: BTreeMap<ReaderId, (u64, Timestamp)>,
    /// The latest instant that a call got: the clock never goes back.
    now: Timestamp,
    /// The log file of the latest [`Record::Start`].
    start_file: u64,
}

impl Tail {
    /// Applies a record, live or during replay.
    pub(super) fn apply(&mut self, record: Record, file: u64) {
        match record {
            Record::Start {
                feed,
                last,
                token,
                writers,
            } => {
                self.feed = Some(feed);
                self.start_file = file;
                if self.last.0 != last {
                    // The files before this one were removed.
                    self.entries.clear();
                    self.bytes = 0;
                }
                self.last = (last, token.number());
                for writer in writers {
                    self.writers
                        .insert(writer.id, (writer.last, writer.seen_at));
                }
            }
            Record::Entry(mut entry) => {
                entry.number = self.last.0 + 1;
                self.last = (entry.number, entry.token.number());
                let now = self.now();
                self.writers.insert(entry.writer, (entry.sequence, now));
                self.bytes += entry.record.len() as u64;
                self.entries.push_back((entry, file));
            }
        }
    }

    pub(super) fn feed(&self) -> Option<FeedId> {
        self.feed
    }

    /// The current time, not before an earlier result.
    pub(super) fn now(&mut self) -> Timestamp {
        self.now = self.now.max(Timestamp::now());
        self.now
    }

    /// The last number of a writer that knows the feed `known`, if it is not a new writer.
    pub(super) fn check(
        &mut self,
        known: Option<FeedId>,
        writer: WriterId,
    ) -> Result<Option<u64>, FeedError> {
        if let (Some(known), Some(feed)) = (known, self.feed)
            && known != feed
        {
            return Err(FeedError::Renewed(feed));
        }
        let now = self.now();
        Ok(self.writers.get_mut(&writer).map(|(last, seen_at)| {
            *seen_at = now;
            *last
        }))
    }

    /// The record of the state, for the start of a log file.
    pub(super) fn start(&self) -> Option<Record> {
        Some(Record::Start {
            feed: self.feed?,
            last: self.last.0,
            token: Token::from_number(self.last.1),
            writers: self.writers(),
        })
    }

    pub(super) fn end(&self, feed: FeedId) -> Cursor {
        Cursor {
            feed,
            number: self.last.0,
            token: Token::from_number(self.last.1),
        }
    }

    pub(super) fn read(
        &mut self,
        feed: FeedId,
        after: &Cursor,
        max_bytes: usize,
    ) -> Result<Page, FeedError> {
        let before = self.expect(feed, after)?;
        let skipped = usize::try_from(after.number - before).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let later = self.entries.iter().skip(skipped).map(|(entry, _)| entry);
        let entries: Vec<Entry> = later
            .take_while(|entry| {
                let is_within = bytes == 0 || bytes < max_bytes;
                bytes += entry.record.len().max(1);
                is_within
            })
            .cloned()
            .collect();
        let next = after.past(&entries);
        let now = self.now();
        Ok(Page {
            as_of: (next.number == self.last.0).then_some(now),
            now,
            // The process that reads is the one that writes.
            server: 0,
            next,
            entries,
        })
    }

    /// Checks that the feed has a position. Returns the number before the first entry.
    fn expect(&self, feed: FeedId, at: &Cursor) -> Result<u64, FeedError> {
        if at.feed != feed {
            return Err(FeedError::Renewed(feed));
        }
        let before = self.before_first();
        let entry = at
            .number
            .checked_sub(before)
            .and_then(|steps| steps.checked_sub(1));
        let entry = entry.and_then(|position| self.entries.get(usize::try_from(position).ok()?));
        let is_known = match entry {
            Some((entry, _)) => entry.token == at.token,
            None => at.number == before,
        };
        if !is_known {
            return Err(FeedError::Discontinued {
                oldest: Cursor {
                    number: before,
                    ..Cursor::start(feed)
                },
                trimmed: at.number < before,
            });
        }
        Ok(before)
    }

    /// The number before the first entry.
    fn before_first(&self) -> u64 {
        self.last.0 - self.entries.len() as u64
    }

    pub(super) fn trim(
        &mut self,
        feed: FeedId,
        reader: ReaderId,
        at: &Cursor,
        idle: Idle,
    ) -> Result<(), FeedError> {
        self.expect(feed, at)?;
        let now = self.now();
        let is_alive = |seen_at: &Timestamp, idle: Duration| {
            now.duration_since(*seen_at).unsigned_abs() < idle
        };
        self.readers.insert(reader, (at.number, now));
        self.readers
            .retain(|id, (_, seen_at)| *id == reader || is_alive(seen_at, idle.readers));
        let needed = self.readers.values().map(|(number, _)| *number).min();
        while let Some((first, _)) = self.entries.front()
            && needed.is_some_and(|needed| first.number < needed)
        {
            self.drop_first();
        }
        self.writers
            .retain(|_, (_, seen_at)| is_alive(seen_at, idle.writers));
        Ok(())
    }

    pub(super) fn drop_older_half(&mut self) {
        for _ in 0..self.entries.len() / 2 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((entry, _)) = self.entries.pop_front() {
            self.bytes -= entry.record.len() as u64;
        }
    }

    /// The oldest log file that a restart needs.
    pub(super) fn oldest_file(&self) -> u64 {
        let first = self.entries.front().map_or(u64::MAX, |(_, file)| *file);
        first.min(self.start_file)
    }

    pub(super) fn writers(&self) -> Vec<Writer> {
        let writers = self.writers.iter();
        writers
            .map(|(&id, &(last, seen_at))| Writer { id, last, seen_at })
            .collect()
    }

    pub(super) fn size(&self) -> FeedSize {
        FeedSize {
            entries: self.entries.len() as u64,
            bytes: self.bytes,
        }
    }
}
