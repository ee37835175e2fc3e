//! Compares every count with the ledger.

use std::fmt;
use std::net::SocketAddr;

use serde_json::Value;

use crate::ledger::{Ledger, SEGMENTS};
use crate::open_loop::Connection;
use crate::traffic::get;

/// The result of the comparison.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    compared: u64,
    users: u64,
    wrong: Vec<String>,
}

impl Verdict {
    pub(crate) fn all_correct(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            compared, users, ..
        } = self;
        write!(f, "{compared} counts, {users} users in total, ")?;
        match self.wrong.as_slice() {
            [] => write!(f, "all correct"),
            wrong => write!(f, "**{} wrong**: {}", wrong.len(), wrong.join("; ")),
        }
    }
}

/// Compares the counts of every segment over the whole window, half of it, and one slot. No pairs may be written during the comparison.
pub(crate) fn all(ledger: &Ledger, address: SocketAddr) -> Verdict {
    let mut verdict = Verdict::default();
    let mut connection = Connection::open(address).unwrap();
    let slots = ledger.window() / ledger.resolution();
    for segment in 0..SEGMENTS {
        for slots in [slots, slots / 2, 1] {
            let window = slots * ledger.resolution();
            let target = format!("/v1/segments/s{segment}/count?fresh=true&window={window}s");
            let mut body = Vec::new();
            let (status, _) = connection
                .exchange(get(&target).as_bytes(), &mut body)
                .unwrap();
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
            let count: Value = serde_json::from_slice(&body).unwrap();
            let as_of = count["as_of"].as_str().unwrap();
            let as_of: jiff::Timestamp = as_of.parse().unwrap();
            let users = count["users"].as_u64().unwrap();
            let expected = ledger.count(segment, slots, as_of.as_second() as u64);
            verdict.compared += 1;
            verdict.users += users;
            if users != expected {
                verdict.wrong.push(format!(
                    "s{segment} over {window} s: {users}, expected {expected}"
                ));
            }
        }
    }
    verdict
}
