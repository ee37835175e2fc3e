//! `headcount setup` for Postgres: creates the schema, its tables and the installation's key, and records the
//! resolution and `user_key`.
//!
//! An advisory lock serialises concurrent set-ups. Every step checks first what exists.

use std::time::Duration;

use refinery::{Migration, Runner};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use super::error::Error;
use super::options::PostgresOptions;
use super::queries::OFFER_KEY;
use super::session::configured;
use crate::installation_key::random;
use domain::store::{Change, SetUp, Step, StoreError};

/// Each migration runs once, in this order. A released migration must never change: the database records its name and
/// checksum.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__pairs", include_str!("migrations/V1__pairs.sql")),
    (
        "V2__erasures_and_user_key",
        include_str!("migrations/V2__erasures_and_user_key.sql"),
    ),
    (
        "V3__fingerprint_key",
        include_str!("migrations/V3__fingerprint_key.sql"),
    ),
    (
        "V4__properties",
        include_str!("migrations/V4__properties.sql"),
    ),
];

/// The statement timeout of a set-up, and so the maximum wait for a concurrent set-up. A migration of large tables may
/// take long.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// The oldest supported server version, 13: the tables need vacuum after inserts.
const OLDEST_SERVER: i32 = 130_000;

/// The minimum version of the tables.
pub(super) fn schema_version() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Creates whatever is missing for `options`. The role must have the privileges for that.
pub async fn set_up(options: &PostgresOptions) -> Result<SetUp, StoreError> {
    let config = configured(options, STATEMENT_TIMEOUT);
    let connecting = timeout(
        options.connect_timeout.saturating_mul(4),
        config.connect(options.server.tls.clone()),
    );
    let (client, connection) = connecting
        .await
        .map_err(|_| Error::TimedOut(options.connect_timeout.saturating_mul(4)))
        .and_then(|connected| connected.map_err(Error::from))?;
    // A call on a failed connection returns the error, so it is ignored here.
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let mut setup = Setup { client, options };
    setup.check_server().await?;
    // The lock is released when the connection ends.
    setup
        .execute("select pg_advisory_lock(hashtextextended('headcount setup ' || $1, 0))")
        .await?;
    let schema = setup.schema().await?;
    let tables = setup.tables().await?;
    let frame = setup.frame().await?;
    setup.user_key().await?;
    let key = setup.fingerprint_key().await?;
    let step = |what: String, change| Step { what, change };
    Ok(SetUp {
        steps: vec![
            step(format!("schema {:?}", options.schema), schema),
            step(format!("tables of version {}", schema_version()), tables),
            step(
                format!("slots of {} s", options.frame.resolution().seconds()),
                frame,
            ),
            step("the installation's key".to_owned(), key),
        ],
        tokens: Vec::new(),
        warnings: Vec::new(),
    })
}

struct Setup<'a> {
    client: Client,
    options: &'a PostgresOptions,
}

impl Setup<'_> {
    /// Runs a statement with the schema's name as its parameter.
    async fn execute(&self, sql: &str) -> Result<u64, Error> {
        Ok(self.client.execute(sql, &[&self.options.schema]).await?)
    }

    async fn check_server(&self) -> Result<(), StoreError> {
        let query = "select current_setting('server_version_num')::int4, \
            current_setting('server_encoding'), current_setting('fsync')";
        let row = self.client.query_one(query, &[]).await;
        let row = row.map_err(Error::from)?;
        let version: i32 = row.try_get(0).map_err(Error::from)?;
        let encoding: String = row.try_get(1).map_err(Error::from)?;
        let fsync: String = row.try_get(2).map_err(Error::from)?;
        if version < OLDEST_SERVER {
            return Err(StoreError::Rejected(format!(
                "Postgres has version {}; the oldest supported version is {}",
                version / 10_000,
                OLDEST_SERVER / 10_000
            )));
        }
        if encoding != "UTF8" {
            return Err(StoreError::Rejected(format!(
                "Postgres: the database's encoding is {encoding}; names need UTF8"
            )));
        }
        if fsync == "off" {
            tracing::warn!("Postgres runs with fsync = off: a crash of its machine loses pairs");
        }
        Ok(())
    }

    async fn schema(&self) -> Result<Change, Error> {
        let query = "select exists (select from pg_namespace where nspname = $1)";
        let row = self
            .client
            .query_one(query, &[&self.options.schema])
            .await?;
        if row.try_get(0)? {
            return Ok(Change::Unchanged);
        }
        // The name needs no quotes: see `is_schema`.
        let made = format!("create schema {}", self.options.schema);
        self.client.batch_execute(&made).await?;
        Ok(Change::Created)
    }

    async fn tables(&mut self) -> Result<Change, StoreError> {
        let migrations: Result<Vec<Migration>, _> = MIGRATIONS
            .iter()
            .map(|(name, sql)| Migration::unapplied(name, sql))
            .collect();
        let migrations = migrations.map_err(|error| of_runner(&error))?;
        // A newer version may have applied more migrations. They are compatible with this version.
        let mut runner = Runner::new(&migrations)
            .set_grouped(true)
            .set_abort_missing(false);
        runner.set_migration_table_name("schema_history");
        let report = runner
            .run_async(&mut self.client)
            .await
            .map_err(|error| of_runner(&error))?;
        Ok(match report.applied_migrations().len() {
            0 => Change::Unchanged,
            applied if applied == MIGRATIONS.len() => Change::Created,
            _ => Change::Updated,
        })
    }

    /// Records the resolution. Slots are stored as numbers, so their length can't change while there are pairs.
    async fn frame(&mut self) -> Result<Change, StoreError> {
        let seconds = self.options.frame.resolution().seconds();
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
        let change = self.note_resolution(seconds).await?;
        change.map_err(|held| {
            StoreError::Rejected(format!(
                "Postgres: the schema {:?} holds pairs in slots of {held} s, and `resolution` is {seconds} s; \
                 set `resolution` to its old value, or use another `postgres_schema`, which begins empty",
                self.options.schema
            ))
        })
    }

    /// Records `user_key`. Another key may replace it only while there are no pairs.
    async fn user_key(&self) -> Result<(), StoreError> {
        let noted = "update frame set user_key = $1 \
            where user_key is null or not exists (select from pairs)";
        let ours = self.options.user_key_noted();
        let key = async {
            self.client.execute(noted, &[&ours]).await?;
            let row = self
                .client
                .query_one("select user_key from frame", &[])
                .await?;
            row.try_get(0)
        };
        let held: String = key.await.map_err(Error::from)?;
        match self.options.refuses(&held) {
            Some(why) => Err(StoreError::Rejected(format!("Postgres: {why}"))),
            None => Ok(()),
        }
    }

    /// Creates the installation's key if there is none. An instance may do the same concurrently.
    async fn fingerprint_key(&self) -> Result<Change, StoreError> {
        let candidate = random()?.bytes();
        let bytes = candidate.as_slice();
        let offered = self.client.execute(OFFER_KEY, &[&bytes]).await;
        Ok(match offered.map_err(Error::from)? {
            0 => Change::Unchanged,
            _ => Change::Created,
        })
    }

    /// Records the resolution. The inner `Err` is the resolution of existing pairs, which prevents the change.
    async fn note_resolution(&mut self, seconds: i32) -> Result<Result<Change, i32>, Error> {
        let transaction = self.client.transaction().await?;
        let noted = "insert into frame (resolution_seconds) values ($1) on conflict do nothing";
        if transaction.execute(noted, &[&seconds]).await? == 1 {
            transaction.commit().await?;
            return Ok(Ok(Change::Created));
        }
        let query = "select resolution_seconds from frame";
        let held: i32 = transaction.query_one(query, &[]).await?.try_get(0)?;
        if held == seconds {
            return Ok(Ok(Change::Unchanged));
        }
        // The lock blocks all writers until the transaction ends.
        transaction
            .batch_execute("lock table pairs in exclusive mode")
            .await?;
        let query = "select exists (select from pairs)";
        if transaction.query_one(query, &[]).await?.try_get(0)? {
            return Ok(Err(held));
        }
        let changed = "update frame set resolution_seconds = $1";
        transaction.execute(changed, &[&seconds]).await?;
        transaction.commit().await?;
        Ok(Ok(Change::Updated))
    }
}

fn of_runner(error: &refinery::Error) -> StoreError {
    use std::error::Error as _;
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(server) = inner.downcast_ref::<tokio_postgres::error::DbError>() {
            return StoreError::Rejected(format!("Postgres: {}", server.message()));
        }
        source = inner.source();
    }
    StoreError::Rejected(format!("Postgres: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps() {
        for (number, (name, sql)) in MIGRATIONS.iter().enumerate() {
            let migration = Migration::unapplied(name, sql).unwrap();
            assert_eq!(usize::try_from(migration.version()).unwrap(), number + 1);
        }
    }
}
