//! `headcount setup` for a Redis store: writes the resolution, and reports the persistence of the server.
//!
//! The store also writes the resolution itself on first use. Setup shows before that whether the server fits.

use super::{RedisStore, RedisStoreOptions};
use domain::store::{Change, PairStore, SetUp, Step, StoreError};

/// Prepares the server of `options`. It is idempotent, and may run concurrently.
pub async fn set_up(options: RedisStoreOptions) -> Result<SetUp, StoreError> {
    let seconds = options.frame.resolution().seconds();
    let store = RedisStore::open(options)?;
    store.client.ping().await?;
    let is_new = match store.verify().await {
        // Nothing is damaged: the configuration does not fit.
        Err(StoreError::Damaged(reason)) => return Err(StoreError::Rejected(reason)),
        verified => verified?,
    };
    store.take_survey().await;
    let mut steps = vec![Step {
        what: format!(
            "resolution of {seconds} s in {:?}",
            store.requests.keys.meta
        ),
        change: if is_new {
            Change::Created
        } else {
            Change::Unchanged
        },
    }];
    if let Some(survey) = store.survey() {
        steps.push(Step {
            what: format!("persistence: {}", survey.persistence.meaning()),
            change: Change::Unchanged,
        });
    }
    store.close().await?;
    Ok(SetUp {
        steps,
        tokens: Vec::new(),
        warnings: Vec::new(),
    })
}
