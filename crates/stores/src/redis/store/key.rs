//! The installation's key: one per prefix, a field of the meta.

use super::RedisStore;
use crate::installation_key::random;
use crate::redis::ClientError;
use domain::FingerprintKey;
use domain::store::StoreError;

/// The name of the server in log messages.
const PLACE: &str = "Redis";

impl RedisStore {
    /// The key, and whether this call created it.
    pub(super) async fn agreed_key(&self) -> Result<(FingerprintKey, bool), StoreError> {
        if let Some(key) = self.key.get() {
            return Ok((key, false));
        }
        let (key, is_new) = match self.stored_key().await? {
            Some(key) => (key, false),
            None => self.create_key().await?,
        };
        Ok((self.key.adopt(key, PLACE), is_new))
    }

    /// If this process uses a key, compares it with the stored one and adopts that. A server that was emptied gets the
    /// known key again, so that all instances keep it.
    pub(super) async fn check_key(&self) -> Result<(), StoreError> {
        let Some(known) = self.key.get() else {
            return Ok(());
        };
        let mut stored = self.stored_key().await?;
        if stored.is_none() {
            // Best effort: a user that may only read leaves this to another instance.
            match self.offer_key(known).await {
                Ok(_) => stored = self.stored_key().await?,
                Err(error) => {
                    tracing::debug!(%error, "the installation's key was not stored again");
                }
            }
        }
        if let Some(stored) = stored {
            self.key.adopt(stored, PLACE);
        }
        Ok(())
    }

    /// Stores a new random key, unless another process is first. Returns the key that is stored then, and whether it is
    /// the new one.
    async fn create_key(&self) -> Result<(FingerprintKey, bool), StoreError> {
        let candidate = random()?;
        let is_new = self.offer_key(candidate).await?;
        match self.stored_key().await? {
            Some(key) => Ok((key, is_new)),
            None => Err(StoreError::Unavailable(format!(
                "redis removed the fingerprint key in {} as soon as it was stored",
                self.requests.keys.meta
            ))),
        }
    }

    /// Stores `key` if there is none. Returns whether it was stored. A retry of a request that took effect returns
    /// false.
    async fn offer_key(&self, key: FingerprintKey) -> Result<bool, StoreError> {
        let request = self.requests.offer_key(key);
        match self.client.send_with_retry(&[request]).await {
            Ok(responses) => super::parse_one(responses),
            Err(ClientError::Misconfigured(reason)) => Err(StoreError::NotSetUp(format!(
                "{} has no fingerprint key, and this user may not store one: {reason}",
                self.requests.keys.meta
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// The key that Redis holds.
    async fn stored_key(&self) -> Result<Option<FingerprintKey>, StoreError> {
        let digits: Option<String> = self.query(self.requests.key()).await?;
        let Some(digits) = digits else {
            return Ok(None);
        };
        let key = FingerprintKey::from_hex(&digits);
        key.map(Some).ok_or_else(|| {
            StoreError::Damaged(format!(
                "the fingerprint_key in {} in redis is not 32 hexadecimal digits; restore it from a backup",
                self.requests.keys.meta
            ))
        })
    }
}
