//! Creates what the configured store needs before it can hold pairs: buckets, tables, tokens.

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

/// Creates what is missing in the configured store. With `issue_tokens` it also issues tokens that are restricted to
/// what the service needs. Idempotent, also if two processes run it at once.
pub async fn set_up(settings: &Settings, issue_tokens: bool) -> Result<SetUp, StoreError> {
    match settings.store.kind {
        // The embedded store creates its directory when it opens.
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
