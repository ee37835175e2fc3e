//! The installation's key: one per schema, in the row of the table `frame`.

use super::PostgresStore;
use super::error::Error;
use super::queries::{KEY, OFFER_KEY};
use super::record::with_retries;
use super::session::Session;
use crate::installation_key::random;
use domain::FingerprintKey;
use domain::store::StoreError;

/// The name of the server in log messages.
const PLACE: &str = "Postgres";

/// The key. Creates it if the schema has none.
pub(super) async fn key(store: &PostgresStore) -> Result<FingerprintKey, StoreError> {
    if let Some(key) = store.key.get() {
        return Ok(key);
    }
    let stored = with_retries(store, || async {
        read(&mut store.writes.session().await?).await
    });
    let key = match stored.await? {
        Some(key) => key,
        None => create(store).await?,
    };
    Ok(store.key.adopt(key, PLACE))
}

/// Reads the key, and adopts it if this process uses one. If the schema has lost its key, the known one is stored again.
pub(super) async fn look_again(store: &PostgresStore, session: &mut Session) -> Result<(), Error> {
    let mut stored = read(session).await?;
    let Some(known) = store.key.get() else {
        return Ok(());
    };
    if stored.is_none() {
        // Best effort: a role that may only read leaves this to another instance.
        match offer(session, known).await {
            Ok(()) => stored = read(session).await?,
            Err(error) => tracing::debug!(%error, "the installation's key was not stored again"),
        }
    }
    if let Some(stored) = stored {
        store.key.adopt(stored, PLACE);
    }
    Ok(())
}

/// Stores a new random key, unless another process is first. Returns the key that is stored then.
async fn create(store: &PostgresStore) -> Result<FingerprintKey, StoreError> {
    let candidate = random()?;
    let stored = with_retries(store, || async {
        let mut session = store.writes.session().await?;
        offer(&mut session, candidate).await?;
        read(&mut session).await
    });
    let schema = &store.options.schema;
    match stored.await {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(Error::OldSchema(format!("the schema {schema:?} is not complete")).into()),
        Err(error) if error.is_missing_write_access() => Err(Error::OldSchema(format!(
            "the schema {schema:?} has no fingerprint key, and can't be written: {error}"
        ))
        .into()),
        Err(error) => Err(error.into()),
    }
}

/// Stores `key` if the schema has none.
async fn offer(session: &mut Session, key: FingerprintKey) -> Result<(), Error> {
    session
        .execute(OFFER_KEY, &[&key.bytes().as_slice()])
        .await?;
    Ok(())
}

/// The key that the schema holds.
async fn read(session: &mut Session) -> Result<Option<FingerprintKey>, Error> {
    let rows = session.query(KEY, &[]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let bytes: Option<&[u8]> = row.try_get(0)?;
    bytes.map(parsed).transpose()
}

fn parsed(bytes: &[u8]) -> Result<FingerprintKey, Error> {
    let bytes = bytes
        .try_into()
        .map_err(|_| Error::InvalidResponse("the fingerprint key does not have 16 bytes".into()));
    bytes.map(FingerprintKey::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_length_is_refused() {
        let key = random().unwrap();
        assert_eq!(parsed(&key.bytes()).unwrap(), key);
        for length in [0, 15, 17] {
            let error = StoreError::from(parsed(&vec![0; length]).unwrap_err());
            assert_eq!(error.name(), "damaged", "{length} bytes: {error}");
        }
    }
}
