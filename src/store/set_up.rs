//! Makes what the configured store needs before pairs can live in it.

use super::open::{influx_options, postgres_options, redis_options};
use super::{StoreError, influx, postgres, redis};
use crate::config::{Settings, StoreKind};

/// What a set-up did.
#[derive(Debug)]
pub struct SetUp {
    /// Each thing that the store needs, in the order in which they were looked at.
    pub steps: Vec<Step>,
    /// Secrets made now, which will not be told again.
    pub tokens: Vec<IssuedToken>,
    /// What is there and does harm, a sentence each.
    pub warnings: Vec<String>,
}

/// One thing that a store needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// What it is, as in `bucket "headcount"`.
    pub what: String,
    /// What became of it.
    pub change: Change,
}

/// What became of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was missing.
    Created,
    /// It was there in another form.
    Updated,
    /// It was as it should be.
    Unchanged,
}

/// A new secret.
#[derive(Clone)]
pub struct IssuedToken {
    /// What it is for, in a word: one of [`token_roles`].
    pub role: &'static str,
    /// What it is for, as the store lists it.
    pub purpose: String,
    /// The secret.
    pub token: String,
}

impl std::fmt::Debug for IssuedToken {
    /// Everything but the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken")
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

/// The roles for which the configured store issues tokens.
pub fn token_roles(settings: &Settings) -> &'static [&'static str] {
    match settings.store.kind {
        StoreKind::Influx => &influx::TOKEN_ROLES,
        StoreKind::Embedded | StoreKind::Postgres | StoreKind::Redis => &[],
    }
}

/// Makes what is missing for the configured store; with `issue_tokens` also secrets that may do no more than
/// the service needs. It may be repeated, and run twice at once.
pub async fn set_up(settings: &Settings, issue_tokens: bool) -> Result<SetUp, StoreError> {
    match settings.store.kind {
        // It makes its directory when it opens.
        StoreKind::Embedded => Ok(SetUp {
            steps: Vec::new(),
            tokens: Vec::new(),
            warnings: Vec::new(),
        }),
        StoreKind::Influx => influx::set_up(&influx_options(settings)?, issue_tokens).await,
        StoreKind::Redis => redis::set_up(redis_options(settings)?).await,
        StoreKind::Postgres if issue_tokens => {
            Err(StoreError::Unsupported("Postgres has roles and no tokens"))
        }
        StoreKind::Postgres => postgres::set_up(&postgres_options(settings)?).await,
    }
}
