//! Connection pools, and sessions: a session uses a connection of a pool until a deadline.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use futures::TryStreamExt;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row};

use super::error::Error;
use super::only;
use super::options::PostgresOptions;
use super::setup::schema_version;
use domain::store::StoreError;

/// The idle time before TCP keepalive probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// The TCP user timeout: unacknowledged data older than this ends the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// The client's timeout exceeds the server's statement timeout by this, because the server's error is more specific.
const GRACE: Duration = Duration::from_secs(1);

/// The query that checks the tables before the first use of a connection. If `synchronous_commit` is off, so that the
/// server would acknowledge a commit before it is on disk, the query turns it on. Other values stay.
///
/// The key is read through a JSON document, because a table of version 1 has no such column. The schema is explicit,
/// because a search path silently skips a schema that the role may not use.
fn check_of(schema: &str) -> String {
    format!(
        "select resolution_seconds, \
            (select max(version) from {schema}.schema_history) as version, \
            to_jsonb(frame) ->> 'user_key', \
            case when current_setting('synchronous_commit') = 'off' \
                then set_config('synchronous_commit', 'on', false) end \
        from {schema}.frame"
    )
}

/// A connection pool, for either reads or writes.
#[derive(Debug)]
pub(super) struct Sessions {
    pool: Pool,
    create_timeout: Duration,
    /// The default timeout of a session.
    within: Duration,
    options: PostgresOptions,
}

/// The use of a connection pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Connections in use.
    pub in_use: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
}

impl Sessions {
    /// A pool of at most `connections`, with `statement_timeout` on the server. It opens no connection yet.
    pub(super) fn new(
        options: &PostgresOptions,
        connections: usize,
        statement_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let config = configured(options, statement_timeout);
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(1);
        let connect = *config
            .get_connect_timeout()
            .unwrap_or(&options.connect_timeout);
        let manager = Manager::from_config(
            config,
            options.server.tls.clone(),
            ManagerConfig {
                // No test query is needed: `Session` closes a connection whose response is still pending.
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| {
                StoreError::Unavailable(format!(
                    "Postgres: can't create a connection pool: {error}"
                ))
            })?;
        Ok(Self {
            pool,
            create_timeout: connect.saturating_mul(hosts),
            within: statement_timeout.saturating_add(GRACE),
            options: options.clone(),
        })
    }

    /// A session for one or a few statements, which share the timeout of one.
    pub(super) async fn session(&self) -> Result<Session, Error> {
        self.session_within(self.within).await
    }

    /// A session with the timeout `within`, if that is shorter than the default.
    pub(super) async fn session_within(&self, within: Duration) -> Result<Session, Error> {
        let within = within.min(self.within);
        let deadline = Instant::now() + within;
        let timeouts = Timeouts {
            wait: Some(within),
            create: Some(self.create_timeout.min(within)),
            recycle: Some(within),
        };
        let client = self.pool.timeout_get(&timeouts).await?;
        let is_new = Object::metrics(&client).recycle_count == 0;
        let mut session = Session {
            client: Some(client),
            response_pending: false,
            deadline,
            within,
        };
        if is_new {
            self.check(&mut session).await?;
        }
        Ok(session)
    }

    /// Checks on a new connection that the tables match this version of the program and the options.
    async fn check(&self, session: &mut Session) -> Result<(), Error> {
        // A call that is dropped midway leaves no unchecked connection in the pool: see `Session::drop`.
        let checked = self.checked(session).await;
        if checked.is_err() {
            // The next session must check again, on a new connection.
            session.drop_connection();
        }
        checked
    }

    async fn checked(&self, session: &mut Session) -> Result<(), Error> {
        let schema = &self.options.schema;
        let rows = session.query(&check_of(schema), &[]).await?;
        let [row] = &rows[..] else {
            return Err(Error::OldSchema(format!(
                "the schema {schema:?} is not complete"
            )));
        };
        let resolution: i32 = row.try_get(0)?;
        let version: Option<i32> = row.try_get(1)?;
        if version.unwrap_or(0) < schema_version() {
            return Err(Error::OldSchema(format!(
                "the schema {schema:?} is of version {}, not {}",
                version.unwrap_or(0),
                schema_version()
            )));
        }
        let ours = self.options.frame.resolution().seconds();
        if i64::from(resolution) != i64::from(ours) {
            return Err(Error::OtherFrame(format!(
                "the schema {schema:?} has slots of {resolution} s, and `resolution` is {ours} s"
            )));
        }
        let held: Option<String> = row.try_get(2)?;
        let held = match held {
            Some(held) => held,
            None => self.note_user_key(session).await?,
        };
        self.options
            .refuses(&held)
            .map_or(Ok(()), |why| Err(Error::OtherFrame(why)))
    }

    /// Records `user_key`, unless another instance has done so. Returns the recorded value.
    async fn note_user_key(&self, session: &mut Session) -> Result<String, Error> {
        let schema = &self.options.schema;
        let noted = format!(
            "update {schema}.frame set user_key = coalesce(user_key, $1) returning user_key"
        );
        let ours = self.options.user_key_noted();
        let rows = session.query(&noted, &[&ours]).await?;
        Ok(only(&rows)?.try_get(0)?)
    }

    /// The current use of the pool.
    pub(super) fn usage(&self) -> PoolUse {
        let status = self.pool.status();
        PoolUse {
            in_use: status.size.saturating_sub(status.available),
            waiting: status.waiting,
        }
    }

    /// Closes idle connections. A connection in use closes when it is returned to the pool.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// The server's configuration, with the startup options of every connection.
pub(super) fn configured(options: &PostgresOptions, statement_timeout: Duration) -> Config {
    let mut config = options.server.config.clone();
    // Counts and archiving rely on this isolation level, whatever the server's default is. JIT is off, because compiling
    // a count takes longer than most counts.
    let ours = format!(
        "-c search_path={} -c statement_timeout={} -c jit=off -c client_min_messages=warning \
         -c default_transaction_isolation=read\\ committed",
        options.schema,
        statement_timeout.as_millis().clamp(1, 2_147_483_647),
    );
    let all = match config.get_options() {
        Some(theirs) => format!("{theirs} {ours}"),
        None => ours,
    };
    config.options(all);
    if config.get_application_name().is_none() {
        config.application_name("headcount");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(options.connect_timeout);
    }
    config.keepalives_idle(KEEPALIVE_IDLE);
    config.tcp_user_timeout(USER_TIMEOUT);
    config
}

/// A connection of the pool, which is returned when the session is dropped. If a response is still pending, the connection
/// is closed instead, because the next session would wait for that response.
#[derive(Debug)]
pub(super) struct Session {
    client: Option<Object>,
    response_pending: bool,
    deadline: Instant,
    within: Duration,
}

impl Session {
    /// Runs a statement, which is prepared once per connection, and reads all its rows.
    pub(super) async fn query(
        &mut self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        self.each_row(sql, values, |row| {
            rows.push(row);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Runs a statement and passes its rows one by one to `read`.
    pub(super) async fn each_row(
        &mut self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
        mut read: impl FnMut(Row) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let client = self.client.as_ref().ok_or(Error::Closed)?;
        self.response_pending = true;
        let call = async {
            let statement = client.prepare_cached(sql).await?;
            let rows = client.query_raw(&statement, values.iter().copied()).await?;
            let mut rows = std::pin::pin!(rows);
            while let Some(row) = rows.try_next().await? {
                read(row)?;
            }
            Ok(())
        };
        let result = timeout_at(self.deadline, call).await;
        // After an error of `read`, more rows may arrive.
        self.response_pending = !matches!(result, Ok(Ok(()) | Err(Error::Server { .. })));
        result.unwrap_or(Err(Error::TimedOut(self.within)))
    }

    /// Runs a statement that returns no rows. Returns the number of affected rows.
    pub(super) async fn execute(
        &mut self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        let client = self.client.as_ref().ok_or(Error::Closed)?;
        self.response_pending = true;
        let call = async {
            let statement = client.prepare_cached(sql).await?;
            Ok(client.execute(&statement, values).await?)
        };
        let result = timeout_at(self.deadline, call).await;
        self.response_pending = result.is_err();
        result.unwrap_or(Err(Error::TimedOut(self.within)))
    }

    fn drop_connection(&mut self) {
        drop(self.client.take().map(Object::take));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.response_pending {
            self.drop_connection();
        }
    }
}
