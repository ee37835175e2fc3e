//! The installation's key in the memory of a store whose server keeps it: Postgres and Redis.
//!
//! The server holds one key. A store reads it once and keeps it in memory. Each ping compares the two, because an operator
//! may empty or restore the server while instances run.

use parking_lot::RwLock;

use domain::FingerprintKey;
use domain::store::StoreError;

/// The key as this process last read it; none before the first call that needs it.
#[derive(Debug, Default)]
pub(super) struct KnownKey(RwLock<Option<FingerprintKey>>);

impl KnownKey {
    /// The key, if it was read.
    pub(super) fn get(&self) -> Option<FingerprintKey> {
        *self.0.read()
    }

    /// Replaces the key with the one that the server `place` holds, and returns it. Logs a warning if they differ.
    pub(super) fn adopt(&self, stored: FingerprintKey, place: &str) -> FingerprintKey {
        let former = self.0.write().replace(stored);
        if former.is_some_and(|former| former != stored) {
            tracing::warn!(
                "the installation's key in {place} was replaced: switched to the new one"
            );
        }
        stored
    }
}

/// A new random key, to offer to a server that holds none.
pub(super) fn random() -> Result<FingerprintKey, StoreError> {
    FingerprintKey::random()
        .map_err(|error| StoreError::Unavailable(format!("can't generate a random key: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_server_replaces_the_known_one() {
        let known = KnownKey::default();
        assert_eq!(known.get(), None);
        for stored in [random().unwrap(), random().unwrap()] {
            assert_eq!(known.adopt(stored, "a test"), stored);
            assert_eq!(known.get(), Some(stored));
        }
    }
}
