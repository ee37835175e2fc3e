//! Connections: two pools, and a session on one of their connections that ends in time.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use futures::TryStreamExt;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row};

use super::error::Error;
use super::options::PostgresOptions;
use super::setup::schema_version;
use domain::store::StoreError;

/// A connection that nothing was heard on for this long is asked whether it still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Bytes that nobody acknowledges for this long end a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// How much longer the client waits than the server works: the server's own error says more.
const GRACE: Duration = Duration::from_secs(1);

/// What a connection's tables must fit, asked before its first use. Where the server would answer before a commit
/// is on its disk, it is told to wait; whoever wants more than its disk keeps that.
///
/// The key is read by name from a document, since a table of version 1 has no such column. The schema is named: in a search path, a schema that the role may not use is as good as absent.
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

/// Connections for one kind of work.
#[derive(Debug)]
pub(super) struct Sessions {
    pool: Pool,
    create_timeout: Duration,
    /// How long a session may take by default.
    within: Duration,
    options: PostgresOptions,
}

/// How many connections are used, and how many callers wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Connections in use.
    pub in_use: usize,
    /// Callers that wait.
    pub waiting: usize,
}

impl Sessions {
    /// At most `connections`, on which the server stops a statement after `statement_timeout`. None is made yet.
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
                // A session that did not end well takes its connection with it.
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Unavailable(format!("Postgres: no pool: {error}")))?;
        Ok(Self {
            pool,
            create_timeout: connect.saturating_mul(hosts),
            within: statement_timeout.saturating_add(GRACE),
            options: options.clone(),
        })
    }

    /// A session for one statement or a few, all of them within the time of one.
    pub(super) async fn session(&self) -> Result<Session, Error> {
        self.session_within(self.within).await
    }

    /// A session with a time of its own, if that is shorter.
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
            answer_due: false,
            deadline,
            within,
        };
        if is_new {
            self.check(&mut session).await?;
        }
        Ok(session)
    }

    /// Whether the tables behind a new connection are those that this program and its settings need.
    async fn check(&self, session: &mut Session) -> Result<(), Error> {
        // Dropped midway, the session must not leave an unchecked connection behind.
        let checked = self.checked(session).await;
        if checked.is_err() {
            // Whoever comes next must check again.
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

    /// Notes `user_key` unless another instance has; what is noted then.
    async fn note_user_key(&self, session: &mut Session) -> Result<String, Error> {
        let schema = &self.options.schema;
        let noted = format!(
            "update {schema}.frame set user_key = coalesce(user_key, $1) returning user_key"
        );
        let ours = self.options.user_key_noted();
        let rows = session.query(&noted, &[&ours]).await?;
        let row = rows.first();
        let row = row.ok_or_else(|| Error::Nonsense("no frame".to_owned()))?;
        Ok(row.try_get(0)?)
    }

    /// How the pool is used now.
    pub(super) fn usage(&self) -> PoolUse {
        let status = self.pool.status();
        PoolUse {
            in_use: status.size.saturating_sub(status.available),
            waiting: status.waiting,
        }
    }

    /// Closes what is idle; what is in use closes when it is given back.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// The server's configuration with what every connection of ours says at its start.
pub(super) fn configured(options: &PostgresOptions, statement_timeout: Duration) -> Config {
    let mut config = options.server.config.clone();
    // Counts and archiving rely on this isolation, whatever the server's default is. Compiling a count takes
    // longer than most counts.
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

/// A connection of the pool until it is dropped. One on which an answer is still due ends then, in place of being
/// given back: the next user would wait for that answer.
#[derive(Debug)]
pub(super) struct Session {
    client: Option<Object>,
    answer_due: bool,
    deadline: Instant,
    within: Duration,
}

impl Session {
    /// Runs a statement, prepared once a connection, and reads all its rows.
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

    /// Runs a statement and reads its rows one by one.
    pub(super) async fn each_row(
        &mut self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
        mut read: impl FnMut(Row) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let client = self.client.as_ref().ok_or(Error::Closed)?;
        self.answer_due = true;
        let asked = async {
            let statement = client.prepare_cached(sql).await?;
            let rows = client.query_raw(&statement, values.iter().copied()).await?;
            let mut rows = std::pin::pin!(rows);
            while let Some(row) = rows.try_next().await? {
                read(row)?;
            }
            Ok(())
        };
        let answer = timeout_at(self.deadline, asked).await;
        // After an error of `read` rows may still come.
        self.answer_due = !matches!(answer, Ok(Ok(()) | Err(Error::Server { .. })));
        answer.unwrap_or(Err(Error::TimedOut(self.within)))
    }

    /// Runs a statement that gives no rows; how many it touched.
    pub(super) async fn execute(
        &mut self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        let client = self.client.as_ref().ok_or(Error::Closed)?;
        self.answer_due = true;
        let asked = async {
            let statement = client.prepare_cached(sql).await?;
            Ok(client.execute(&statement, values).await?)
        };
        let answer = timeout_at(self.deadline, asked).await;
        self.answer_due = answer.is_err();
        answer.unwrap_or(Err(Error::TimedOut(self.within)))
    }

    fn drop_connection(&mut self) {
        drop(self.client.take().map(Object::take));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.answer_due {
            self.drop_connection();
        }
    }
}
