//! The requests: posts of pairs whose users change over time, and reads of every kind.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::ledger::{Ledger, Post, SEGMENTS};
use crate::open_loop::{Connection, Script};

/// The number of pairs in a regular post.
pub(crate) const PAIRS_PER_POST: u64 = 500;
/// One of this many posts has a single pair, as JSON.
const SINGLE_EVERY: u64 = 4;

/// The kind of requests in a load.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Writes,
    Reads,
    /// Alternating writes and reads.
    Both,
}

/// The script of requests, by number.
pub(crate) struct Traffic {
    kind: Kind,
    ledger: Arc<Ledger>,
}

impl Traffic {
    pub(crate) fn new(kind: Kind, ledger: Arc<Ledger>) -> Self {
        Self { kind, ledger }
    }

    fn is_write(&self, n: u64) -> bool {
        match self.kind {
            Kind::Writes => true,
            Kind::Reads => false,
            Kind::Both => n.is_multiple_of(2),
        }
    }
}

impl Script for Traffic {
    fn write_request(&self, n: u64, out: &mut Vec<u8>) {
        if !self.is_write(n) {
            let target = read_target(&self.ledger, n);
            out.extend_from_slice(get(&target).as_bytes());
            return;
        }
        let single = (n / 2).is_multiple_of(SINGLE_EVERY);
        let pairs = if single { 1 } else { PAIRS_PER_POST };
        let post = self.ledger.begin(n, pairs);
        write_post(&self.ledger, &post, out);
    }

    fn answered(&self, n: u64, response: Option<(u16, &[u8])>) {
        if self.is_write(n) {
            self.ledger.end(n, response.map(|(status, _)| status));
        }
    }
}

/// Sends all posts with an unknown result again. Sending a pair twice has no effect.
pub(crate) fn repeat_unresolved(ledger: &Ledger, address: SocketAddr) {
    let mut connection = Connection::open(address).unwrap();
    let (mut request, mut body) = (Vec::new(), Vec::new());
    for post in ledger.take_unresolved() {
        request.clear();
        write_post(ledger, &post, &mut request);
        let (status, _) = connection.exchange(&request, &mut body).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        ledger.acknowledge(&post);
    }
}

/// A request without a body.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

fn write_post(ledger: &Ledger, post: &Post, out: &mut Vec<u8>) {
    let mut body = String::with_capacity(post.pairs as usize * 64);
    let at = post.at;
    for (user, segment) in ledger.pairs(post) {
        writeln!(
            body,
            r#"{{"user_id":"u{user}","segment":"s{segment}","at":{at}}}"#
        )
        .unwrap();
    }
    let content_type = match post.pairs {
        1 => "application/json",
        _ => "application/x-ndjson",
    };
    let head = format!(
        "POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}

/// The path of read `n`: mostly counts, and one of each other read among twenty.
fn read_target(ledger: &Ledger, n: u64) -> String {
    let segment = n % SEGMENTS;
    match n / 2 % 20 {
        0 => "/v1/segments?sort=users&limit=50".to_owned(),
        1 => format!("/v1/users/u{}", ledger.active_user(n)),
        2 => format!("/v1/segments/s{segment}/trend"),
        3 => format!("/v1/segments/s{segment}/count?fresh=true"),
        4 => format!(
            "/v1/segments/s{segment}/count?window={}s",
            ledger.window() / 2
        ),
        5 => "/v1/segments/nobody/count".to_owned(),
        _ => format!("/v1/segments/s{segment}/count"),
    }
}
