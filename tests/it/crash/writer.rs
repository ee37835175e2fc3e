//! Clients that write until the service is killed and record every response in the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::ledger::{Change, Ledger, SEGMENTS, User, segment_name, user_name};

/// The number of writers. Each writer has its own users, so that the changes of a user are ordered.
pub const WRITERS: u32 = 6;
const USERS_EACH: u32 = 3_000;
/// The maximum age of a posted pair in seconds. The rest of the window is slack for a slow machine.
const OLDEST: i64 = 20;
/// Pairs of one in twenty posts. Their log record spans several pages, so that a kill can tear it.
const LARGE: usize = 6_000;

pub struct Writer {
    pub number: u32,
    pub url: String,
    pub ledger: Arc<Mutex<Ledger>>,
    pub random: fastrand::Rng,
    /// Whether a 503 is expected: on a disk without power, or for an erasure while the store is unavailable.
    pub may_be_refused: bool,
    /// Set when responses are no longer evidence.
    pub proves_nothing: Arc<AtomicBool>,
    pub answered: UnboundedSender<()>,
}

/// The outcome of a change, by its response.
enum Verdict {
    Done,
    /// Refused in whole or in part. A part may have been applied.
    Unclear,
    /// No response was received.
    NoResponse,
}

impl Writer {
    pub async fn run(mut self) {
        let client = reqwest::Client::new();
        let mut avoided = self.ledger.lock().in_doubt();
        loop {
            let change = self.next_change();
            if users(&change).iter().any(|user| avoided.contains(user)) {
                continue;
            }
            match self.send(&client, &change).await {
                Verdict::Done => self.ledger.lock().acknowledge(&change),
                Verdict::Unclear => {
                    self.ledger.lock().doubt(&change);
                    avoided.extend(users(&change));
                }
                Verdict::NoResponse => {
                    self.ledger.lock().doubt(&change);
                    return;
                }
            }
            // The receiver may be closed already.
            let _ = self.answered.send(());
        }
    }

    fn next_change(&mut self) -> Change {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_secs()).unwrap();
        let number = self.number;
        let random = &mut self.random;
        let user = |random: &mut fastrand::Rng| number + random.u32(..USERS_EACH) * WRITERS;
        if random.u8(..16) == 0 {
            return Change::Erase(user(random));
        }
        let users: Vec<User> = (0..40).map(|_| user(random)).collect();
        let pairs = match random.u8(..20) {
            0 => LARGE,
            _ => random.usize(1..200),
        };
        let pair = |_| {
            let user = users[random.usize(..users.len())];
            (user, random.u8(..SEGMENTS), now - random.i64(0..OLDEST))
        };
        Change::Post((0..pairs).map(pair).collect())
    }

    async fn send(&self, client: &reqwest::Client, change: &Change) -> Verdict {
        let request = match change {
            Change::Post(pairs) => client
                .post(format!("{}/v1/pairs", self.url))
                .header("content-type", "application/x-ndjson")
                .body(body(pairs)),
            Change::Erase(user) => {
                let name = user_name(*user).replace(' ', "%20");
                client.delete(format!("{}/v1/users/{name}", self.url))
            }
        };
        let Ok(response) = request.send().await else {
            return Verdict::NoResponse;
        };
        let status = response.status().as_u16();
        // Headers without a complete body do not count as a response.
        let Ok(response) = response.json::<Value>().await else {
            return Verdict::NoResponse;
        };
        match status {
            _ if self.proves_nothing.load(Ordering::SeqCst) => Verdict::Unclear,
            // On a stalled machine, pairs may expire before the service receives them.
            200 | 202 if response["rejected"].as_u64().unwrap_or(0) > 0 => Verdict::Unclear,
            200 | 202 => Verdict::Done,
            422 => Verdict::Unclear,
            503 if self.may_be_refused => Verdict::Unclear,
            _ => panic!("unexpected status {status}: {response}"),
        }
    }
}

fn users(change: &Change) -> Vec<User> {
    match change {
        Change::Post(pairs) => pairs.iter().map(|(user, _, _)| *user).collect(),
        Change::Erase(user) => vec![*user],
    }
}

fn body(pairs: &[(User, u8, i64)]) -> String {
    let line = |(user, segment, at): &(User, u8, i64)| {
        let (user, segment) = (user_name(*user), segment_name(*segment));
        format!("{{\"user_id\":\"{user}\",\"segment\":\"{segment}\",\"at\":{at}}}\n")
    };
    pairs.iter().map(line).collect()
}
