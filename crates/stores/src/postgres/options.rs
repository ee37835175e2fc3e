//! Options of the Postgres store.

use std::time::Duration;

use super::server::PostgresServer;
use crate::user_key;
use domain::TimeFrame;

/// The server, the schema, and the limits and timeouts of statements.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The server's address and TLS configuration.
    pub server: PostgresServer,
    /// The schema of the tables. [`is_schema`] must accept the name.
    pub schema: String,
    /// The window and the resolution.
    pub frame: TimeFrame,
    /// A digest of `user_key`, if it is set. A schema whose pairs were recorded with another key is refused.
    pub user_key: Option<String>,
    /// The maximum number of connections, at least two. Half of them serve only writes, so that slow counts do not delay
    /// writes.
    pub connections: usize,
    /// The server's timeout for one statement that reads.
    pub statement_timeout: Duration,
    /// The timeout of connecting, unless the URL has one.
    pub connect_timeout: Duration,
    /// The timeout of a write of at most `batch_pairs`, including all retries: the maximum time that a client waits before
    /// its pairs go to the spool.
    pub write_timeout: Duration,
    /// The maximum number of pairs in one statement.
    pub batch_pairs: usize,
    /// The maximum number of attempts of a write that fails because of a deadlock, a serialization failure or the end of
    /// its connection.
    pub write_attempts: u32,
}

impl PostgresOptions {
    /// Options with defaults for everything else.
    pub fn new(server: PostgresServer, schema: &str, frame: TimeFrame) -> Self {
        Self {
            server,
            schema: schema.to_owned(),
            frame,
            user_key: None,
            connections: 10,
            statement_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(6),
            batch_pairs: 5_000,
            write_attempts: 5,
        }
    }

    /// The value to record for `user_key`.
    pub(super) fn user_key_noted(&self) -> String {
        self.user_key.clone().unwrap_or_else(|| NO_KEY.to_owned())
    }

    /// The reason to refuse pairs that were recorded with the key `held`; `None` if the key matches.
    pub(super) fn refuses(&self, held: &str) -> Option<String> {
        if held == self.user_key_noted() {
            return None;
        }
        let held = Some(held).filter(|held| *held != NO_KEY);
        let was = user_key::recorded(held, self.user_key.as_deref());
        Some(format!(
            "the pairs of the schema {:?} were recorded {was}: every user would count twice; set user_key to its former \
             value, or use another postgres_schema",
            self.schema
        ))
    }
}

/// The recorded value if `user_key` is not set.
const NO_KEY: &str = "-";

/// A description of valid schema names, for error messages. Such a name needs no quotes in SQL.
pub const SCHEMA: &str = "1 to 63 of a-z, 0-9 and _, no digit first, and not pg_...";

/// Whether `name` is a valid schema name, as described by [`SCHEMA`].
pub fn is_schema(name: &str) -> bool {
    let letters = |byte: u8| matches!(byte, b'a'..=b'z' | b'_');
    name.len() <= 63
        && name.bytes().next().is_some_and(letters)
        && name
            .bytes()
            .all(|byte| letters(byte) || byte.is_ascii_digit())
        && !name.starts_with("pg_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_needs_no_quotes() {
        for good in ["headcount", "_a1", "a_b"] {
            assert!(is_schema(good), "{good}");
        }
        for bad in ["", "1a", "Head", "a-b", "a b", "a;b", "pg_temp", "ä"] {
            assert!(!is_schema(bad), "{bad}");
        }
        assert!(!is_schema(&"a".repeat(64)));
    }
}
