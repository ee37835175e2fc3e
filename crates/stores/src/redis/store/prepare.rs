//! Checks once per connection: whether the slots in Redis have the configured resolution, whether the installation's key
//! is still the known one, and how the server persists writes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::requests::FORMAT;
use super::survey::{self, Survey};
use super::{RedisStore, parse};
use crate::redis::ClientError;
use crate::user_key;
use domain::store::StoreError;

/// A health check queries the persistence of the server again after this time.
const SURVEY_EVERY: Duration = Duration::from_mins(1);

/// How long these queries may delay the first call on a connection.
const SURVEY_TIMEOUT: Duration = Duration::from_secs(1);

/// The value that replaces the digest of `user_key` when no key is set.
const NO_KEY: &str = "none";

/// The state of the checks.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The generation of the connection that passed the checks; 0 before the first. Generations start at 1.
    generation: AtomicU64,
    survey: Mutex<Option<(Survey, Instant)>>,
}

impl Prepared {
    pub(super) fn survey(&self) -> Option<Survey> {
        self.survey
            .lock()
            .as_ref()
            .map(|(survey, _)| survey.clone())
    }

    fn survey_is_old(&self) -> bool {
        let survey = self.survey.lock();
        survey
            .as_ref()
            .is_none_or(|(_, at)| at.elapsed() >= SURVEY_EVERY)
    }
}

impl RedisStore {
    /// Checks the server behind the connection, once per connection.
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        self.check_open()?;
        let generation = self.client.generation().await?;
        if self.prepared.generation.load(Ordering::Acquire) == generation {
            return Ok(());
        }
        self.verify().await?;
        self.check_key().await?;
        self.take_survey().await;
        self.prepared
            .generation
            .store(generation, Ordering::Release);
        Ok(())
    }

    /// Repeats the checks: a server may be flushed or reconfigured without losing the connection.
    pub(super) async fn recheck(&self) -> Result<(), StoreError> {
        self.verify().await?;
        self.check_key().await?;
        if self.prepared.survey_is_old() {
            self.take_survey().await;
        }
        Ok(())
    }

    /// Compares the resolution and the digest of `user_key` with those in Redis, or writes them if there are none.
    /// Returns whether they were written.
    pub(super) async fn verify(&self) -> Result<bool, StoreError> {
        let ours = self.options.frame.resolution().seconds();
        let our_key = self.options.user_key.as_deref().unwrap_or(NO_KEY);
        let (is_new, format, theirs, their_key): (u64, String, String, String) =
            self.query(self.requests.meta(ours, our_key)).await?;
        let meta = &self.requests.keys.meta;
        let prefix = self.options.prefix.as_str();
        if format != FORMAT {
            return Err(StoreError::Damaged(format!(
                "{meta} has format {format}, but this version of headcount supports {FORMAT}; use another version, \
                 or another redis_prefix than {prefix}"
            )));
        }
        if theirs != ours.to_string() {
            return Err(StoreError::Damaged(format!(
                "the pairs under {prefix} in redis have a resolution of {theirs} s ({meta}), and {ours} s is \
                 configured; set resolution = \"{theirs}s\", or use another redis_prefix"
            )));
        }
        if their_key != our_key {
            let theirs = Some(their_key.as_str()).filter(|key| *key != NO_KEY);
            let was = user_key::recorded(theirs, self.options.user_key.as_deref());
            return Err(StoreError::Damaged(format!(
                "the pairs under {prefix} in redis were recorded {was} ({meta}): every user would count twice; set user_key \
                 to its former value, or use another redis_prefix"
            )));
        }
        Ok(is_new == 1)
    }

    /// Queries the persistence and eviction settings of the server, and logs them when they have changed.
    pub(super) async fn take_survey(&self) {
        let queries = survey::queries();
        let pending = queries.iter().map(|query| async {
            match self.client.send_to_masters(query).await {
                // Without permission for the command, the survey reports the setting as unknown.
                Err(ClientError::Misconfigured(_) | ClientError::Protocol(_)) => Ok(Vec::new()),
                responses => responses,
            }
        });
        // After a failure it is queried another time: no pair waits for it.
        let results = timeout(SURVEY_TIMEOUT, try_join_all(pending)).await;
        let Ok(Ok(responses)) = results else {
            return;
        };
        let Ok(survey) =
            parse_all(responses).map(|[info, sync, save]| survey::read(info, sync, save))
        else {
            return;
        };
        let former = self
            .prepared
            .survey
            .lock()
            .replace((survey.clone(), Instant::now()));
        if former.is_none_or(|(former, _)| former != survey) {
            survey.log(&self.options.server.name);
        }
    }
}

/// Each node's response to each query, as strings.
fn parse_all<const N: usize>(
    responses: Vec<Vec<redis::Value>>,
) -> Result<[Vec<Vec<String>>; N], StoreError> {
    let texts = responses.into_iter().map(|nodes| {
        let text = |value| match value {
            redis::Value::Map(pairs) => {
                let flat = pairs.into_iter().flat_map(|(name, value)| [name, value]);
                flat.map(parse).collect()
            }
            redis::Value::Array(values) => values.into_iter().map(parse).collect(),
            other => Ok(vec![parse(other)?]),
        };
        nodes.into_iter().map(text).collect()
    });
    let texts: Vec<Vec<Vec<String>>> = texts.collect::<Result<_, StoreError>>()?;
    texts.try_into().map_err(|_| {
        super::invalid_response("the number of responses differs from the number of queries")
    })
}
