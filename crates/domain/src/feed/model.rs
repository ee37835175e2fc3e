//! A feed in memory, for tests, that can lose entries and stop responding.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Append, Appended, ChangeFeed, Cursor, Entry, FeedError, FeedId, FeedSize, Idle, Page, ReaderId,
    Token, Writer, WriterId,
};
use crate::{Clock, ManualClock, Timestamp};

/// A [`ChangeFeed`] in memory. The default one has a clock of its own, which advances by one millisecond a call.
#[derive(Debug)]
pub struct ModelFeed {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    feed: Option<FeedId>,
    /// The number of the newest entry that was ever appended and not lost.
    last: u64,
    entries: BTreeMap<u64, Entry>,
    writers: BTreeMap<WriterId, (u64, Timestamp)>,
    readers: BTreeMap<ReaderId, (u64, Timestamp)>,
    server: u64,
    /// The time of the call.
    now: Timestamp,
    is_unavailable: bool,
    loses_responses: bool,
}

impl Default for ModelFeed {
    fn default() -> Self {
        let start = Timestamp::from_second(1_800_000_000).unwrap_or_default();
        Self::new(Arc::new(ManualClock::ticking(
            start,
            Duration::from_millis(1),
        )))
    }
}

impl ModelFeed {
    /// An empty feed whose clock is `clock`. Each read of it must return a later instant.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// Loses everything, as `FLUSHALL` does.
    pub fn empty(&self) {
        let mut state = self.state.lock();
        *state = State {
            server: state.server,
            ..State::default()
        };
    }

    /// Loses the newest entries after number `last`, as the promotion of a replica that lags does.
    pub fn lose_after(&self, last: u64) {
        let mut state = self.state.lock();
        let last = last.min(state.last);
        let lost = state.entries.split_off(&(last + 1));
        for entry in lost.values() {
            if let Some((sequence, _)) = state.writers.get_mut(&entry.writer) {
                *sequence = (*sequence).min(entry.sequence - 1);
            }
        }
        state.last = last;
        state.server += 1;
    }

    /// Whether all calls fail.
    pub fn set_unavailable(&self, is_unavailable: bool) {
        self.state.lock().is_unavailable = is_unavailable;
    }

    /// Whether appends take effect but report a timeout.
    pub fn set_loses_responses(&self, loses_responses: bool) {
        self.state.lock().loses_responses = loses_responses;
    }

    fn with<T>(
        &self,
        act: impl FnOnce(&mut State, FeedId) -> Result<T, FeedError>,
    ) -> Result<T, FeedError> {
        let mut state = self.state.lock();
        if state.is_unavailable {
            return Err(FeedError::Unavailable("the model is off".to_owned()));
        }
        state.now = self.clock.now();
        let feed = *state.feed.get_or_insert_with(FeedId::random);
        act(&mut state, feed)
    }
}

impl State {
    fn end(&self, feed: FeedId) -> Cursor {
        self.cursor(feed, self.last)
    }

    fn cursor(&self, feed: FeedId, number: u64) -> Cursor {
        let token = self.entries.get(&number).map(|entry| entry.token);
        Cursor {
            feed,
            number,
            token: token.unwrap_or(Token::from_number(0)),
        }
    }

    /// Checks that the feed has a position.
    fn expect(&self, feed: FeedId, at: &Cursor) -> Result<(), FeedError> {
        if at.feed != feed {
            return Err(FeedError::Renewed(feed));
        }
        let first = self.entries.keys().next().copied();
        let before_first = first.map_or(self.last, |first| first - 1);
        let is_known = match self.entries.get(&at.number) {
            Some(entry) => entry.token == at.token,
            None => at.number == before_first,
        };
        if !is_known {
            return Err(FeedError::Discontinued {
                oldest: Cursor {
                    number: before_first,
                    ..Cursor::start(feed)
                },
                trimmed: at.number < before_first,
            });
        }
        Ok(())
    }

    /// The response to a writer whose feed, as it knows it, is `known`.
    fn check(
        &mut self,
        feed: FeedId,
        known: Option<FeedId>,
        writer: WriterId,
    ) -> Result<Option<u64>, FeedError> {
        if known.is_some_and(|known| known != feed) {
            return Err(FeedError::Renewed(feed));
        }
        let now = self.now;
        Ok(self.writers.get_mut(&writer).map(|(last, seen_at)| {
            *seen_at = now;
            *last
        }))
    }
}

#[async_trait]
impl ChangeFeed for ModelFeed {
    async fn append(&self, feed: Option<FeedId>, append: &Append) -> Result<Appended, FeedError> {
        self.with(|state, id| {
            let last = state.check(id, feed, append.writer)?;
            let at = state.now;
            let appended = Appended { feed: id, at };
            match last {
                Some(last) if append.sequence <= last => return Ok(appended),
                Some(last) if append.sequence > last + 1 && !append.skips => {
                    return Err(FeedError::Lost { last });
                }
                _ => {}
            }
            state.last += 1;
            let entry = Entry {
                number: state.last,
                token: Token::random(),
                writer: append.writer,
                sequence: append.sequence,
                skips: append.skips,
                record: append.record.clone(),
            };
            state.entries.insert(state.last, entry);
            state.writers.insert(append.writer, (append.sequence, at));
            match state.loses_responses {
                true => Err(FeedError::Timeout),
                false => Ok(appended),
            }
        })
    }

    async fn check(
        &self,
        feed: Option<FeedId>,
        writer: WriterId,
        last: u64,
    ) -> Result<Appended, FeedError> {
        self.with(|state, id| {
            let has = state.check(id, feed, writer)?.unwrap_or(0);
            match has < last {
                true => Err(FeedError::Lost { last: has }),
                false => Ok(Appended {
                    feed: id,
                    at: state.now,
                }),
            }
        })
    }

    async fn read(&self, after: &Cursor, max_bytes: usize) -> Result<Page, FeedError> {
        self.with(|state, feed| {
            state.expect(feed, after)?;
            let mut bytes = 0;
            let entries: Vec<Entry> = state
                .entries
                .range(after.number + 1..)
                .map(|(_, entry)| entry.clone())
                .take_while(|entry| {
                    let is_within = bytes == 0 || bytes < max_bytes;
                    bytes += entry.record.len().max(1);
                    is_within
                })
                .collect();
            let next = after.past(&entries);
            let now = state.now;
            Ok(Page {
                as_of: (next.number == state.last).then_some(now),
                now,
                // 0 is for a feed in the process of its readers.
                server: state.server + 1,
                next,
                entries,
            })
        })
    }

    async fn end(&self) -> Result<Cursor, FeedError> {
        self.with(|state, feed| Ok(state.end(feed)))
    }

    async fn trim(&self, reader: ReaderId, at: &Cursor, idle: Idle) -> Result<(), FeedError> {
        self.with(|state, feed| {
            state.expect(feed, at)?;
            let now = state.now;
            let is_alive = |seen_at: &Timestamp, idle: Duration| {
                now.duration_since(*seen_at).unsigned_abs() < idle
            };
            state.readers.insert(reader, (at.number, now));
            state
                .readers
                .retain(|id, (_, seen_at)| *id == reader || is_alive(seen_at, idle.readers));
            let first = state.readers.values().map(|(number, _)| *number).min();
            state.entries = state.entries.split_off(&first.unwrap_or(0));
            state
                .writers
                .retain(|_, (_, seen_at)| is_alive(seen_at, idle.writers));
            Ok(())
        })
    }

    async fn writers(&self) -> Result<Vec<Writer>, FeedError> {
        self.with(|state, _| {
            let writers = state.writers.iter();
            Ok(writers
                .map(|(&id, &(last, seen_at))| Writer { id, last, seen_at })
                .collect())
        })
    }

    async fn size(&self) -> Result<FeedSize, FeedError> {
        self.with(|state, _| {
            let bytes = state.entries.values().map(|entry| entry.record.len());
            Ok(FeedSize {
                entries: state.entries.len() as u64,
                bytes: bytes.sum::<usize>() as u64,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::conformance::{check_feed, check_losses};
    use super::*;

    #[tokio::test]
    async fn the_model_is_a_feed() {
        check_feed(async || Arc::new(ModelFeed::default()) as Arc<dyn ChangeFeed>).await;
        let feed = ModelFeed::default();
        let (lose_after, empty) = (async |last| feed.lose_after(last), async || feed.empty());
        check_losses(&feed, lose_after, empty).await;
    }
}
