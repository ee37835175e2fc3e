//! What `headcount setup` does with a Redis store: notes the resolution, and says what the server keeps.
//!
//! The store does the former by itself at its first use; a set-up shows before that whether the server fits.

use super::{RedisStore, RedisStoreOptions};
use domain::store::{Change, PairStore, SetUp, Step, StoreError};

/// Prepares the server of `options`. It may be repeated, and run twice at once.
pub async fn set_up(options: RedisStoreOptions) -> Result<SetUp, StoreError> {
    let seconds = options.frame.resolution().seconds();
    let store = RedisStore::open(options)?;
    store.link.ping().await?;
    let is_new = match store.verify().await {
        // Nothing is damaged yet: what is configured does not fit.
        Err(StoreError::Damaged(reason)) => return Err(StoreError::Rejected(reason)),
        verified => verified?,
    };
    store.take_survey().await;
    let mut steps = vec![Step {
        what: format!("resolution of {seconds} s in {:?}", store.asks.keys.meta),
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
