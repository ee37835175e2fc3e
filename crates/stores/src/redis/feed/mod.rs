//! The change feed in Redis: a stream, on one server or a cluster.

mod keys;
mod options;
mod scripts;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, Value};

pub use self::options::RedisFeedOptions;

use self::keys::Keys;
use self::scripts::Scripts;
use crate::redis::{ChunkLimits, Client, ClientError, ClientOptions, Request, Script};
use domain::Timestamp;
use domain::feed::{
    Append, Appended, ChangeFeed, Cursor, Entry, FeedError, FeedId, FeedSize, Idle, Page, ReaderId,
    Token, Writer, WriterId,
};

/// A [`ChangeFeed`] in Redis. Instances with equal options share it.
#[derive(Debug)]
pub struct RedisFeed {
    client: Client,
    keys: Keys,
    scripts: Scripts,
    max_bytes: String,
    keep: String,
}

/// Number, token, writer, sequence, whether it skips, record.
type EntryFields = (u64, String, String, u64, String, Vec<u8>);

impl RedisFeed {
    /// Starts to connect in the background and returns at once, whether Redis is available or not. Must be called within a
    /// tokio runtime.
    pub fn open(options: RedisFeedOptions) -> Self {
        Self {
            keys: Keys::new(&options.prefix),
            scripts: Scripts::new(),
            max_bytes: options.max_bytes.to_string(),
            keep: options.keep.as_millis().to_string(),
            client: Client::open(ClientOptions {
                server: options.server,
                // A call sends one request.
                limits: ChunkLimits {
                    max_arguments: usize::MAX,
                    base_timeout: options.command_timeout,
                    timeout_per_argument: Duration::ZERO,
                    max_in_flight: 1,
                },
                connect_timeout: options.connect_timeout,
                cluster_retries: 2,
                cluster_retry_wait: Duration::from_millis(5),
                user: "the change feed",
                meanwhile: "new pairs are counted when it is available again",
            }),
        }
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        args: Vec<String>,
    ) -> Result<T, FeedError> {
        let mut all_args = vec![FeedId::random().to_string()];
        all_args.extend(args);
        self.send(Request::Run(script, self.keys.all(), all_args))
            .await
    }

    /// Sends a request. All of them are idempotent.
    async fn send<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, FeedError> {
        let mut responses = self.client.send_with_retry(&[request]).await?;
        let response = responses.pop().unwrap_or(Value::Nil);
        T::from_redis_value(response).map_err(damaged)
    }
}

#[async_trait]
impl ChangeFeed for RedisFeed {
    async fn append(&self, feed: Option<FeedId>, append: &Append) -> Result<Appended, FeedError> {
        let args = vec![
            FeedId::random().to_string(),
            known(feed),
            append.writer.to_string(),
            append.sequence.to_string(),
            if append.skips { "1" } else { "" }.to_owned(),
            Token::random().to_string(),
            self.max_bytes.clone(),
            self.keep.clone(),
        ];
        let request = Request::RunOn(&self.scripts.append, self.keys.all(), args, &append.record);
        appended(self.send(request).await?)
    }

    async fn check(
        &self,
        feed: Option<FeedId>,
        writer: WriterId,
        last: u64,
    ) -> Result<Appended, FeedError> {
        let args = vec![known(feed), writer.to_string(), last.to_string()];
        appended(self.run(&self.scripts.check, args).await?)
    }

    async fn read(&self, after: &Cursor, max_bytes: usize) -> Result<Page, FeedError> {
        let args = vec![
            after.feed.to_string(),
            after.number.to_string(),
            after.token.to_string(),
            max_bytes.to_string(),
        ];
        let response: Vec<Value> = self.run(&self.scripts.read, args).await?;
        page(after, positioned(response)?)
    }

    async fn end(&self) -> Result<Cursor, FeedError> {
        let (feed, number, token): (String, u64, String) =
            self.run(&self.scripts.end, Vec::new()).await?;
        Ok(Cursor {
            feed: FeedId::from_number(hex(&feed)?),
            number,
            token: Token::from_number(match token.as_str() {
                "" => 0,
                token => hex(token)?,
            }),
        })
    }

    async fn trim(&self, reader: ReaderId, at: &Cursor, idle: Idle) -> Result<(), FeedError> {
        let micros = |idle: Duration| idle.as_micros().min(1 << 52).to_string();
        let args = vec![
            at.feed.to_string(),
            at.number.to_string(),
            at.token.to_string(),
            reader.to_string(),
            micros(idle.writers),
            micros(idle.readers),
            self.keep.clone(),
        ];
        let response: Vec<Value> = self.run(&self.scripts.trim, args).await?;
        positioned(response).map(drop)
    }

    async fn writers(&self) -> Result<Vec<Writer>, FeedError> {
        let known: HashMap<String, String> = self.run(&self.scripts.writers, Vec::new()).await?;
        let writers = known.into_iter().map(|(id, value)| {
            let (last, seen) = value.split_once(' ').ok_or_else(|| damaged("a writer"))?;
            Ok(Writer {
                id: WriterId::from_number(hex(&id)?),
                last: last.parse().map_err(damaged)?,
                seen_at: instant(seen.parse().map_err(damaged)?)?,
            })
        });
        writers.collect()
    }

    async fn size(&self) -> Result<FeedSize, FeedError> {
        let (entries, bytes) = self.run(&self.scripts.size, Vec::new()).await?;
        Ok(FeedSize { entries, bytes })
    }
}

/// The fields of a response to a call with a position, if the position is in the feed.
fn positioned(response: Vec<Value>) -> Result<std::vec::IntoIter<Value>, FeedError> {
    let mut fields = response.into_iter();
    let outcome: String = next(&mut fields)?;
    let feed = FeedId::from_number(hex(&next::<String>(&mut fields)?)?);
    match outcome.as_str() {
        "ok" => Ok(fields),
        "discontinued" => {
            let number = next(&mut fields)?;
            let trimmed: String = next(&mut fields)?;
            Err(FeedError::Discontinued {
                oldest: Cursor {
                    number,
                    ..Cursor::start(feed)
                },
                trimmed: !trimmed.is_empty(),
            })
        }
        _ => Err(FeedError::Renewed(feed)),
    }
}

/// The response to a read whose position is in the feed.
fn page(after: &Cursor, mut fields: std::vec::IntoIter<Value>) -> Result<Page, FeedError> {
    let last: u64 = next(&mut fields)?;
    let now = instant(next(&mut fields)?)?;
    let run_id: String = next(&mut fields)?;
    let read: Vec<EntryFields> = next(&mut fields)?;
    let entries: Vec<Entry> = read.into_iter().map(entry).collect::<Result<_, _>>()?;
    let next = after.past(&entries);
    Ok(Page {
        as_of: (next.number == last).then_some(now),
        now,
        // Forty hexadecimal digits; empty without permission for `INFO`.
        server: run_id.get(..16).map_or(Ok(0), hex)?,
        next,
        entries,
    })
}

fn entry(fields: EntryFields) -> Result<Entry, FeedError> {
    let (number, token, writer, sequence, skips, record) = fields;
    Ok(Entry {
        number,
        token: Token::from_number(hex(&token)?),
        writer: WriterId::from_number(hex(&writer)?),
        sequence,
        skips: !skips.is_empty(),
        record,
    })
}

/// The response to an append or a check.
fn appended(response: Vec<String>) -> Result<Appended, FeedError> {
    let mut fields = response.iter().map(String::as_str);
    let mut field = || {
        fields
            .next()
            .ok_or_else(|| damaged("a response is incomplete"))
    };
    match field()? {
        "ok" => Ok(Appended {
            feed: FeedId::from_number(hex(field()?)?),
            at: instant(field()?.parse().map_err(damaged)?)?,
        }),
        "lost" => Err(FeedError::Lost {
            last: field()?.parse().map_err(damaged)?,
        }),
        _ => Err(FeedError::Renewed(FeedId::from_number(hex(field()?)?))),
    }
}

fn known(feed: Option<FeedId>) -> String {
    feed.map_or_else(String::new, |feed| feed.to_string())
}

fn next<T: FromRedisValue>(fields: &mut std::vec::IntoIter<Value>) -> Result<T, FeedError> {
    let field = fields.next().unwrap_or(Value::Nil);
    T::from_redis_value(field).map_err(damaged)
}

fn hex(digits: &str) -> Result<u64, FeedError> {
    u64::from_str_radix(digits, 16).map_err(damaged)
}

fn instant(micros: i64) -> Result<Timestamp, FeedError> {
    Timestamp::from_microsecond(micros).map_err(damaged)
}

fn damaged(what: impl std::fmt::Display) -> FeedError {
    FeedError::Damaged(what.to_string())
}

impl From<ClientError> for FeedError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Timeout => Self::Timeout,
            ClientError::Unavailable(text) | ClientError::Misconfigured(text) => {
                Self::Unavailable(text)
            }
            ClientError::Full(text) => Self::Full(text),
            ClientError::Protocol(text) => Self::Damaged(text),
        }
    }
}
