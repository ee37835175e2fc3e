//! What is asked once per connection: whether the slots in Redis are as long as ours, and whether Redis keeps what it
//! is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::asks::FORMAT;
use super::survey::{self, Survey};
use super::{RedisStore, parse};
use crate::redis::LinkError;
use crate::user_key;
use domain::store::StoreError;

/// How old what the server said of itself may become, where somebody asks for the store's health.
const SURVEY_EVERY: Duration = Duration::from_mins(1);

/// How long the question may hold up whoever happens to ask first.
const SURVEY_TIMEOUT: Duration = Duration::from_secs(1);

/// What stands for the digest of `user_key` where there is none.
const NO_KEY: &str = "none";

/// How far the preparations have come.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The connection whose server was found to hold slots of our length. Numbers begin at 1.
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
    /// Makes sure that the server behind the connection is the right one. Costs nothing once it did.
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        self.check_open()?;
        let generation = self.link.generation().await?;
        if self.prepared.generation.load(Ordering::Acquire) == generation {
            return Ok(());
        }
        self.verify().await?;
        self.take_survey().await;
        self.prepared
            .generation
            .store(generation, Ordering::Release);
        Ok(())
    }

    /// Does the same again: a server may have been flushed or set otherwise while the connection stayed.
    pub(super) async fn look_again(&self) -> Result<(), StoreError> {
        self.verify().await?;
        if self.prepared.survey_is_old() {
            self.take_survey().await;
        }
        Ok(())
    }

    /// Compares the resolution and `user_key` with those in Redis, or notes them there; whether they were noted now.
    pub(super) async fn verify(&self) -> Result<bool, StoreError> {
        let ours = self.options.frame.resolution().seconds();
        let our_key = self.options.user_key.as_deref().unwrap_or(NO_KEY);
        let (is_new, format, theirs, their_key): (u64, String, String, String) =
            self.ask(self.asks.meta(ours, our_key)).await?;
        let meta = &self.asks.keys.meta;
        let prefix = self.options.prefix.as_str();
        if format != FORMAT {
            return Err(StoreError::Damaged(format!(
                "{meta} says format {format}, and this version of headcount knows {FORMAT}; use another version, \
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
                "the pairs under {prefix} in redis were recorded {was} ({meta}): every user would count twice; give user_key \
                 its former value, or use another redis_prefix"
            )));
        }
        Ok(is_new == 1)
    }

    /// Asks the server what it keeps. A line in the log says what is new in the answer.
    pub(super) async fn take_survey(&self) {
        let questions = survey::questions();
        let asking = questions.iter().map(|question| async {
            match self.link.ask_masters(question).await {
                // A user who may not ask gets no answer, and the survey says so.
                Err(LinkError::Misconfigured(_) | LinkError::Protocol(_)) => Ok(Vec::new()),
                answers => answers,
            }
        });
        // What is not known now is asked another time: no pair waits for it.
        let asked = timeout(SURVEY_TIMEOUT, try_join_all(asking)).await;
        let Ok(Ok(answers)) = asked else {
            return;
        };
        let Ok(survey) =
            parse_all(answers).map(|[info, sync, save]| survey::read(info, sync, save))
        else {
            return;
        };
        let former = self
            .prepared
            .survey
            .lock()
            .replace((survey.clone(), Instant::now()));
        if former.is_none_or(|(former, _)| former != survey) {
            survey.tell(&self.options.server.name);
        }
    }
}

/// Each node's answer to each question, as texts.
fn parse_all<const N: usize>(
    answers: Vec<Vec<redis::Value>>,
) -> Result<[Vec<Vec<String>>; N], StoreError> {
    let texts = answers.into_iter().map(|nodes| {
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
    texts
        .try_into()
        .map_err(|_| super::nonsense("another number of answers than questions"))
}
