//! Version 0.1.0, as InfluxDB sees it: a bucket without the record of an installation, and an instance that writes points whose place
//! in their slot is a hash without a key.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use siphasher::sip::SipHasher13;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::load::{Ledger, SEGMENTS, some_pairs};
use super::site::Site;
use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::two_weeks;

/// An instance of that version.
#[derive(Clone)]
pub struct Former {
    url: String,
    client: reqwest::Client,
}

/// Load by that instance, until [`end`](Self::end).
pub struct FormerLoad {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Former {
    /// Creates the bucket of the pairs as `headcount setup` of that version did. The server has that of the trend.
    pub async fn set_up(influx: &Influxd) -> Self {
        let orgs = influx.get("api/v2/orgs").await;
        let window = two_weeks().full_window().seconds();
        let rule = json!({"type": "expire", "everySeconds": window});
        let bucket = json!({"orgID": orgs["orgs"][0]["id"], "name": "b", "retentionRules": [rule]});
        let created = influx.post("api/v2/buckets", &bucket).await;
        assert_eq!(created.status(), 201);
        Self {
            url: format!("{}/api/v2/write", influx.url()),
            client: reqwest::Client::new(),
        }
    }

    /// Records users of a segment, seen in the minute that began at this unix time.
    pub async fn record(&self, users: &[String], segment: &str, minute: i64) {
        let mut lines = String::new();
        for user in users {
            push_line(&mut lines, segment, user, minute);
        }
        assert_eq!(self.write(lines).await, 204);
    }

    /// Records pairs of the load, and notes them in the ledger.
    pub fn start_load(&self, ledger: &Arc<Mutex<Ledger>>) -> FormerLoad {
        let stop = CancellationToken::new();
        let (former, ledger, until) = (self.clone(), Arc::clone(ledger), stop.clone());
        let task = tokio::spawn(async move {
            while !until.is_cancelled() {
                former.record_some(&ledger).await;
                tokio::time::sleep(Duration::from_millis(fastrand::u64(5..40))).await;
            }
        });
        FormerLoad { stop, task }
    }

    async fn record_some(&self, ledger: &Mutex<Ledger>) {
        let pairs = some_pairs(ledger);
        let mut lines = String::new();
        for (segment, user) in &pairs {
            push_line(&mut lines, SEGMENTS[*segment], user, this_minute());
        }
        assert_eq!(self.write(lines).await, 204);
        // That version answered with 200 as soon as InfluxDB had the pairs.
        ledger.lock().answer(&pairs, 200);
    }

    async fn write(&self, lines: String) -> u16 {
        let request = self.client.post(&self.url).body(lines);
        let request = request
            .query(&[("org", ORG), ("bucket", "b")])
            .header("Authorization", format!("Token {TOKEN}"));
        request.send().await.unwrap().status().as_u16()
    }
}

impl FormerLoad {
    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// The unix time at which the present slot began.
pub fn this_minute() -> i64 {
    let now = Timestamp::now().as_second();
    now - now % i64::from(two_weeks().resolution().seconds())
}

/// The line of a pair. The names of these tests need no escapes but that of a space.
fn push_line(lines: &mut String, segment: &str, user: &str, minute: i64) {
    let segment = segment.replace(' ', "\\ ");
    // The hash of 0.1.0 is SipHash-1-3 under a key of zeroes.
    let mut hasher = SipHasher13::new();
    hasher.write(user.as_bytes());
    let length = u64::from(two_weeks().resolution().seconds()) * 1_000_000_000;
    let nanos = minute * 1_000_000_000 + i64::try_from(hasher.finish() % length).unwrap();
    writeln!(lines, "pair,segment={segment} user=\"{user}\" {nanos}").unwrap();
}

/// Members who have a point of 0.1.0 in this minute are seen in it again, which is another point.
pub async fn see_again(site: &Site, service: usize, members: &[String], minute: i64) {
    let at = Timestamp::from_second(minute).unwrap().to_string();
    let pair = |member| json!({"user_id": member, "segment": "members", "at": at});
    let pairs: Vec<_> = members.iter().map(pair).collect();
    let service = &site.services[service].service;
    service.post_body(json!(pairs).to_string()).await;
    let points = points(&site.influx, &members[0]).await;
    let minutes: BTreeSet<_> = points.iter().map(|time| &time[..16]).collect();
    assert_eq!((points.len(), minutes.len()), (2, 1), "{points:?}");
}

/// The number of records of an installation.
pub async fn installations(influx: &Influxd) -> usize {
    let query = "from(bucket: \"headcount_trend\") |> range(start: 1970-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z) \
                 |> filter(fn: (r) => r._measurement == \"installation\")";
    influx.flux(query).await.len()
}

/// The times of the points of a user.
async fn points(influx: &Influxd, user: &str) -> Vec<String> {
    let query = format!(
        "from(bucket: \"b\") |> range(start: -1h, stop: 1h) |> filter(fn: (r) => r._measurement == \"pair\" \
         and r._value == \"{user}\") |> group() |> keep(columns: [\"_time\"])"
    );
    let rows = influx.flux(&query).await.into_iter();
    rows.map(|mut row| row.pop().unwrap()).collect()
}
