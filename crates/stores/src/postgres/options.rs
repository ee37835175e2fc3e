//! What a Postgres store needs to know.

use std::time::Duration;

use super::server::PostgresServer;
use crate::user_key;
use domain::TimeFrame;

/// Where the server is, what to call things there, and how patient to be.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The server.
    pub server: PostgresServer,
    /// The schema that holds the tables, a name that [`is_schema`] takes.
    pub schema: String,
    /// The window and the resolution.
    pub frame: TimeFrame,
    /// A digest of `user_key`, where there is one: pairs that were recorded with another one are refused.
    pub user_key: Option<String>,
    /// The most connections, at least two. Half of them only write, so that slow counts hold up no pair.
    pub connections: usize,
    /// How long one statement that reads may take. The server stops it then.
    pub statement_timeout: Duration,
    /// How long a connection may take to be made, unless the URL says.
    pub connect_timeout: Duration,
    /// How long a write of at most `batch_pairs` may take with all its tries: what a client waits at most before
    /// its pairs go to the spool.
    pub write_timeout: Duration,
    /// The most pairs in one statement.
    pub batch_pairs: usize,
    /// How often a write is tried that others made fail: by a deadlock, or by the end of a connection.
    pub write_attempts: u32,
}

impl PostgresOptions {
    /// Options with the defaults of everything that has one.
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

    /// What is noted of `user_key`.
    pub(super) fn user_key_noted(&self) -> String {
        self.user_key.clone().unwrap_or_else(|| NO_KEY.to_owned())
    }

    /// Why pairs that were recorded with what `held` notes are refused.
    pub(super) fn refuses(&self, held: &str) -> Option<String> {
        if held == self.user_key_noted() {
            return None;
        }
        let held = Some(held).filter(|held| *held != NO_KEY);
        let was = user_key::recorded(held, self.user_key.as_deref());
        Some(format!(
            "the pairs of the schema {:?} were recorded {was}: every user would count twice; give user_key its former \
             value, or use another postgres_schema",
            self.schema
        ))
    }
}

/// What stands for the digest of `user_key` where there is none.
const NO_KEY: &str = "-";

/// What a schema may be called: nothing that would need quotes.
pub const SCHEMA: &str = "1 to 63 of a-z, 0-9 and _, no digit first, and not pg_...";

/// Whether `name` is such a name.
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
