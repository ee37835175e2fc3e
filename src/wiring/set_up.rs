//! Makes what the configured store needs before pairs can live in it.

use super::store::{influx_options, postgres_options, redis_options};
use crate::config::{Settings, StoreKind};
use domain::store::{SetUp, StoreError};
use stores::{influx, postgres, redis};

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
        StoreKind::Redis => redis::store::set_up(redis_options(settings)?).await,
        StoreKind::Postgres if issue_tokens => {
            Err(StoreError::Unsupported("Postgres has roles and no tokens"))
        }
        StoreKind::Postgres => postgres::set_up(&postgres_options(settings)?).await,
    }
}
