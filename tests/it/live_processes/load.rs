//! Load through the front door, and a ledger of what was answered that does not know how headcount works.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use parking_lot::Mutex;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::site::{Role, Site};
use crate::support::service::poll;

pub const SEGMENTS: [&str; 3] = ["news", "front page", "sports"];
/// Users of the load. Few enough that many come again.
const USERS: u64 = 4_000;
const CLIENTS: usize = 4;
const BATCH: usize = 12;

/// What was answered about each user of a segment.
#[derive(Debug, Clone, Copy, Default)]
struct Answered {
    /// When the first 200 was received.
    stored: Option<Timestamp>,
    /// Whether there was a 200 or 202.
    is_accepted: bool,
}

/// All pairs that were sent, by segment and user.
#[derive(Debug, Default)]
pub struct Ledger {
    pairs: BTreeMap<(usize, String), Answered>,
    statuses: BTreeMap<u16, u64>,
}

/// Load and observation until [`end`](Self::end).
pub struct Load {
    ledger: Arc<Mutex<Ledger>>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Ledger {
    /// Notes a pair that is about to be sent.
    pub fn send(&mut self, segment: usize, user: &str) {
        self.pairs.entry((segment, user.to_owned())).or_default();
    }

    /// Notes the response for pairs.
    pub fn answer(&mut self, pairs: &[(usize, String)], status: u16) {
        *self.statuses.entry(status).or_default() += 1;
        let now = Timestamp::now();
        for pair in pairs {
            let Some(answered) = self.pairs.get_mut(pair) else {
                continue;
            };
            if status == 200 {
                answered.stored.get_or_insert(now);
            }
            answered.is_accepted |= status == 200 || status == 202;
        }
    }

    fn of(&self, segment: usize) -> impl Iterator<Item = (&String, &Answered)> {
        let pairs = self.pairs.iter();
        pairs
            .filter(move |((of, _), _)| *of == segment)
            .map(|((_, user), answered)| (user, answered))
    }

    /// Checks a count: it has at least the users that were answered with 200 before its instant, and nobody who was not sent.
    fn check(&self, segment: usize, count: &Value) {
        let users = count["users"].as_u64().unwrap();
        let as_of: Timestamp = count["as_of"].as_str().unwrap().parse().unwrap();
        if as_of > Timestamp::now() {
            // By the clock of a service, which may be ahead. Live counts are as of the clock of Redis.
            assert_ne!(count["source"], "live", "{count}");
            return;
        }
        let is_due = |answered: &Answered| answered.stored.is_some_and(|at| at < as_of);
        let due = self.of(segment).filter(|(_, it)| is_due(it)).count() as u64;
        let sent = self.of(segment).count() as u64;
        assert!(
            (due..=sent).contains(&users),
            "{}: {due} users were answered with 200 before, {sent} were sent: {count}",
            SEGMENTS[segment]
        );
    }

    /// The number of users of a segment whose pairs were accepted.
    fn accepted(&self, segment: usize) -> u64 {
        self.of(segment).filter(|(_, it)| it.is_accepted).count() as u64
    }

    /// Removes a user who was erased, so that only later pairs count.
    pub fn erase(&mut self, user: &str) {
        self.pairs.retain(|(_, of), _| of != user);
    }

    /// Notes pairs that a test sent by itself.
    pub fn note(&mut self, segment: usize, users: &[String], status: u16) {
        let pairs: Vec<_> = users.iter().map(|user| (segment, user.clone())).collect();
        for (segment, user) in &pairs {
            self.send(*segment, user);
        }
        self.answer(&pairs, status);
    }

    /// How often each status was received; 0 is no response.
    pub fn statuses(&self) -> &BTreeMap<u16, u64> {
        &self.statuses
    }
}

impl Load {
    pub fn start(site: &Site) -> Self {
        Self::continuing(site, Arc::default())
    }

    /// More load, with the ledger of the former.
    pub fn continuing(site: &Site, ledger: Arc<Mutex<Ledger>>) -> Self {
        let stop = CancellationToken::new();
        let posting = (0..CLIENTS).map(|_| {
            let (url, ledger, stop) = (site.front(), Arc::clone(&ledger), stop.clone());
            tokio::spawn(post(url, ledger, stop))
        });
        let mut tasks: Vec<_> = posting.collect();
        for role in &site.services {
            let (url, ledger, stop) = (role.service.url(), Arc::clone(&ledger), stop.clone());
            tasks.push(tokio::spawn(observe(url, ledger, stop)));
        }
        Self {
            ledger,
            stop,
            tasks,
        }
    }

    /// Ends the load. Fails if a count broke the promise.
    pub async fn end(self) -> Arc<Mutex<Ledger>> {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.ledger
    }
}

async fn post(url: String, ledger: Arc<Mutex<Ledger>>, stop: CancellationToken) {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    while !stop.is_cancelled() {
        let pairs = some_pairs(&ledger);
        let body: Vec<_> = pairs
            .iter()
            .map(|(segment, user)| json!({"user_id": user, "segment": SEGMENTS[*segment]}))
            .collect();
        let sending = client.post(format!("{url}/v1/pairs")).json(&body).send();
        let status = match sending.await {
            Ok(response) => response.status().as_u16(),
            Err(_) => 0,
        };
        ledger.lock().answer(&pairs, status);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(2..20))).await;
    }
}

/// Random pairs, noted as sent.
pub fn some_pairs(ledger: &Mutex<Ledger>) -> Vec<(usize, String)> {
    let pair = |_| {
        let user = format!("user {}", fastrand::u64(..USERS));
        (fastrand::usize(..SEGMENTS.len()), user)
    };
    let pairs: Vec<_> = (0..BATCH).map(pair).collect();
    for (segment, user) in &pairs {
        ledger.lock().send(*segment, user);
    }
    pairs
}

/// Reads counts and checks them.
async fn observe(url: String, ledger: Arc<Mutex<Ledger>>, stop: CancellationToken) {
    let client = reqwest::Client::new();
    while !stop.is_cancelled() {
        let segment = fastrand::usize(..SEGMENTS.len());
        let name = SEGMENTS[segment].replace(' ', "%20");
        let window = ["", "?window=1d", "?window=2d"][fastrand::usize(..3)];
        let path = format!("{url}/v1/segments/{name}/count{window}");
        if let Ok(response) = client.get(path).send().await
            && response.status() == 200
            && let Ok(count) = response.json::<Value>().await
            && count["stale"] == false
        {
            ledger.lock().check(segment, &count);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until everything is delivered. Then every instance counts at least all users who were accepted; and after a comparison
/// with the store exactly the users that InfluxDB has: all that were accepted, and nobody who was not sent. Returns the number of
/// segments that the comparison had to heal.
pub async fn expect_exact(site: &Site, ledger: &Mutex<Ledger>) -> u64 {
    site.wait_until_live().await;
    // First, because a comparison would add who is missing.
    for (segment, name) in SEGMENTS.into_iter().enumerate() {
        let accepted = ledger.lock().accepted(segment);
        for role in &site.services {
            let count = fresh_count(role, name, "live").await;
            let has_all = count["users"].as_u64().unwrap() >= accepted;
            assert!(has_all, "{accepted} users of {name} were accepted: {count}");
        }
    }
    expect_exact_once_compared(site, ledger).await
}

/// The same where counts may lack accepted users until the comparison.
pub async fn expect_exact_once_compared(site: &Site, ledger: &Mutex<Ledger>) -> u64 {
    site.wait_until_live().await;
    let healed = site.compare().await;
    let mut all = Vec::new();
    for (segment, name) in SEGMENTS.into_iter().enumerate() {
        let stored = site.stored(name).await;
        expect_same(&ledger.lock(), segment, &stored);
        for role in &site.services {
            let count = role.service.get(&fresh(name)).await;
            assert_eq!(
                (&count["source"], &count["users"]),
                (&json!("live"), &json!(stored.len())),
                "{count}, {:?}",
                ledger.lock().statuses()
            );
        }
        all.push(stored);
    }
    expect_sets(site, &all).await;
    healed
}

/// Checks counts of sets of the segments with these users, which services ask of the live process.
async fn expect_sets(site: &Site, users: &[BTreeSet<String>]) {
    let [news, front_page, sports] = users else {
        panic!("{} segments", users.len());
    };
    let both = front_page & news;
    for (expr, users) in [
        ("news AND \"front page\"", both.len()),
        (
            "(news OR sports) NOT \"front page\"",
            (&(news | sports) - front_page).len(),
        ),
        ("news AND sports AND \"front page\"", (&both & sports).len()),
    ] {
        let url = Url::parse_with_params("http://service/", [("expr", expr)]).unwrap();
        for role in &site.services {
            let path = format!("/v1/count?{}&fresh", url.query().unwrap());
            let count = poll(async || {
                let (status, count) = role.service.try_get(&path).await;
                (status == 200).then_some(count)
            })
            .await;
            assert_eq!(
                (&count["source"], &count["users"]),
                (&json!("live"), &json!(users)),
                "{count}"
            );
        }
    }
}

/// Checks that InfluxDB has every user of a segment who was accepted, and nobody who was not sent.
fn expect_same(ledger: &Ledger, segment: usize, stored: &BTreeSet<String>) {
    let name = SEGMENTS[segment];
    for (user, answered) in ledger.of(segment) {
        assert!(
            stored.contains(user) || !answered.is_accepted,
            "{user} of {name} was accepted and is not stored"
        );
    }
    for user in stored {
        assert!(
            ledger.pairs.contains_key(&(segment, user.clone())),
            "{user} of {name} was not sent"
        );
    }
}

/// Checks the count of a segment that has no load, so that a test knows its users, at every service.
pub async fn expect_users(site: &Site, segment: &str, users: usize, source: &str) {
    for role in &site.services {
        let count = fresh_count(role, segment, source).await;
        assert_eq!(count["users"], users, "{segment}: {count}");
    }
}

/// The count from this source that includes everything that was answered before. A service under load may have to be asked again.
async fn fresh_count(role: &Role, segment: &str, source: &str) -> Value {
    let path = fresh(segment);
    poll(async || {
        let (status, count) = role.service.try_get(&path).await;
        (status == 200 && count["source"] == source).then_some(count)
    })
    .await
}

fn fresh(segment: &str) -> String {
    let segment = segment.replace(' ', "%20");
    format!("/v1/segments/{segment}/count?fresh=true")
}
