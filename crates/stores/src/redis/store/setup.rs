//! `headcount setup` for a Redis store: writes the resolution and the installation's key, and reports the persistence of
//! the server.
//!
//! The store also writes both itself on first use. Setup shows before that whether the server fits.

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
    let (_, is_new_key) = store.agreed_key().await?;
    store.take_survey().await;
    let meta = &store.requests.keys.meta;
    let mut steps = vec![
        step(format!("resolution of {seconds} s in {meta:?}"), is_new),
        step(format!("the installation's key in {meta:?}"), is_new_key),
    ];
    if let Some(survey) = store.survey() {
        let what = format!("persistence: {}", survey.persistence.meaning());
        steps.push(step(what, false));
    }
    store.close().await?;
    Ok(SetUp {
        steps,
        tokens: Vec::new(),
        warnings: Vec::new(),
    })
}

fn step(what: String, is_new: bool) -> Step {
    let change = match is_new {
        true => Change::Created,
        false => Change::Unchanged,
    };
    Step { what, change }
}
