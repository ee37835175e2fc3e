//! The published counts in Redis: a hash and a stream of its changes, on one server or a cluster.

mod changes;
mod keys;
mod options;
mod scripts;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, Value};

pub use self::options::RedisPublishedOptions;

use self::keys::Keys;
use self::scripts::Scripts;
use crate::redis::{ChunkLimits, Client, ClientError, ClientOptions, Request, Script};
use domain::Timestamp;
use domain::feed::Token;
use domain::published::{
    Board, BoardError, Fence, LastTick, Position, PublishError, PublishedCounts, Tick, Update,
};

/// [`PublishedCounts`] in Redis. Instances with equal options share them.
#[derive(Debug)]
pub struct RedisPublishedCounts {
    client: Client,
    keys: Keys,
    scripts: Scripts,
    max_entries: String,
    max_bytes: String,
    keep: String,
}

/// Owner, fence, revision and token of the newest entry, `as_of`, when published, the time of Redis, address, window, '1' if
/// complete.
type Head = (String, u64, u64, String, i64, i64, i64, String, u64, String);

impl RedisPublishedCounts {
    /// Starts to connect in the background and returns at once, whether Redis is available or not. Must be called within a
    /// tokio runtime.
    pub fn open(options: RedisPublishedOptions) -> Self {
        Self {
            keys: Keys::new(&options.prefix),
            scripts: Scripts::new(),
            max_entries: options.max_entries.to_string(),
            max_bytes: options.max_bytes.to_string(),
            keep: millis(options.keep),
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
                user: "the server of published counts",
                meanwhile: "published counts stay as they are until it is available again",
            }),
        }
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        args: Vec<String>,
    ) -> Result<T, BoardError> {
        self.send(Request::Run(script, self.keys.all(), args)).await
    }

    /// Sends a request. All of them are idempotent.
    async fn send<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, BoardError> {
        let mut responses = self.client.send_with_retry(&[request]).await?;
        let response = responses.pop().unwrap_or(Value::Nil);
        T::from_redis_value(response).map_err(damaged)
    }
}

#[async_trait]
impl PublishedCounts for RedisPublishedCounts {
    async fn acquire(&self, owner: u64, ttl: Duration) -> Result<Option<Fence>, BoardError> {
        let args = vec![hex(owner), millis(ttl), self.keep.clone()];
        let fence: Option<u64> = self.run(&self.scripts.acquire, args).await?;
        Ok(fence.map(Fence::from_number))
    }

    async fn release(&self, owner: u64) -> Result<(), BoardError> {
        let _: u64 = self.run(&self.scripts.release, vec![hex(owner)]).await?;
        Ok(())
    }

    async fn publish(&self, fence: Fence, tick: &Tick) -> Result<(), PublishError> {
        let args = vec![
            fence.to_string(),
            tick.revision.to_string(),
            tick.as_of.as_microsecond().to_string(),
            tick.address.clone(),
            tick.window.to_string(),
            flag(tick.complete),
            flag(tick.replaces_all),
            Token::random().to_string(),
            self.keep.clone(),
            self.max_entries.clone(),
            self.max_bytes.clone(),
        ];
        let changes = changes::encode(&tick.changed);
        let publish = &self.scripts.publish;
        let request = Request::RunOn(publish, self.keys.all(), args, changes.as_bytes());
        match self.send(request).await? {
            true => Ok(()),
            false => Err(PublishError::Fenced),
        }
    }

    async fn load(&self) -> Result<Option<Board>, BoardError> {
        let response: Option<(Head, HashMap<String, String>)> =
            self.run(&self.scripts.load, Vec::new()).await?;
        let Some((head, mut counts)) = response else {
            return Ok(None);
        };
        // The token of the board.
        counts.remove("");
        let (tick, position) = last_tick(head)?;
        let counts = counts.iter();
        Ok(Some(Board {
            counts: counts
                .map(|(name, counts)| changes::count(name, counts))
                .collect::<Result<_, _>>()?,
            tick,
            position,
        }))
    }

    async fn follow(&self, after: &Position) -> Result<Update, BoardError> {
        let args = vec![
            after.fence.to_string(),
            after.revision.to_string(),
            after.token.to_string(),
        ];
        let response: Option<(Head, Vec<String>)> = self.run(&self.scripts.follow, args).await?;
        let Some((head, entries)) = response else {
            return Ok(Update::Lost);
        };
        let (tick, position) = last_tick(head)?;
        let mut merged = HashMap::new();
        for lines in &entries {
            merged.extend(changes::decode(lines)?);
        }
        Ok(Update::Changes {
            changed: merged.into_iter().collect(),
            tick,
            position,
        })
    }
}

fn last_tick(head: Head) -> Result<(LastTick, Position), BoardError> {
    let (owner, fence, revision, token, as_of, at, now, address, window, complete) = head;
    let tick = LastTick {
        owner: number(&owner)?,
        as_of: Timestamp::from_microsecond(as_of).map_err(damaged)?,
        address,
        window,
        complete: !complete.is_empty(),
        // The clock of Redis may have been set back.
        age: Duration::from_micros(u64::try_from(now.saturating_sub(at)).unwrap_or(0)),
    };
    let position = Position {
        fence: Fence::from_number(fence),
        revision,
        token: Token::from_number(number(&token)?),
    };
    Ok((tick, position))
}

/// At least one millisecond: Redis refuses to keep a key for none.
fn millis(time: Duration) -> String {
    time.as_millis().clamp(1, 1 << 52).to_string()
}

fn flag(is_set: bool) -> String {
    if is_set { "1" } else { "" }.to_owned()
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn number(digits: &str) -> Result<u64, BoardError> {
    u64::from_str_radix(digits, 16).map_err(damaged)
}

fn damaged(what: impl std::fmt::Display) -> BoardError {
    BoardError::Damaged(what.to_string())
}

impl From<ClientError> for BoardError {
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
