//! The client's side: load, latencies, reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::traffic::SEGMENTS;

/// Connections that post.
const POSTING: usize = 8;
const READING: usize = 32;
const SAMPLES: usize = 300;

pub(crate) struct Sent {
    pub(crate) pairs: u64,
    took: Duration,
}

impl Sent {
    pub(crate) fn rate(&self) -> f64 {
        self.pairs as f64 / self.took.as_secs_f64()
    }
}

fn body(pairs: usize) -> Vec<u8> {
    let pairs: Vec<Value> = (0..pairs)
        .map(|_| {
            let user = format!("u{}", fastrand::u64(..300_000));
            let segment = format!("segment-{}", fastrand::u64(..SEGMENTS));
            json!({"user_id": user, "segment": segment})
        })
        .collect();
    serde_json::to_vec(&pairs).unwrap()
}

async fn post(client: &reqwest::Client, url: &str, body: Vec<u8>) -> u16 {
    let request = client.post(format!("{url}/v1/pairs"));
    let request = request
        .header("content-type", "application/json")
        .body(body);
    request.send().await.unwrap().status().as_u16()
}

/// Posts requests on all connections for a while.
pub(crate) async fn ingest(urls: &[String], pairs: usize, time: Duration) -> Sent {
    let bodies: Arc<Vec<_>> = Arc::new((0..2_000).map(|_| body(pairs)).collect());
    let (began, mut tasks) = (Instant::now(), JoinSet::new());
    for number in 0..POSTING {
        let (url, bodies) = (urls[number % urls.len()].clone(), Arc::clone(&bodies));
        tasks.spawn(async move {
            let (client, mut sent) = (reqwest::Client::new(), 0);
            while began.elapsed() < time {
                let body = bodies[fastrand::usize(..bodies.len())].clone();
                assert_eq!(post(&client, &url, body).await, 200);
                sent += pairs as u64;
            }
            sent
        });
    }
    let pairs = tasks.join_all().await.iter().sum();
    Sent {
        pairs,
        took: began.elapsed(),
    }
}

/// The times from responses to POSTs on one service until the other counts the new user, beside a load in pairs a second and
/// pairs per request.
pub(crate) async fn latencies(from: &str, to: &str, load: Option<(f64, usize)>) -> Vec<Duration> {
    let mut loading = JoinSet::new();
    if let Some((rate, pairs)) = load {
        for url in [from, to] {
            let (url, pause) = (
                url.to_owned(),
                Duration::from_secs_f64(2.0 * pairs as f64 / rate),
            );
            loading.spawn(async move {
                let client = reqwest::Client::new();
                let mut ticks = tokio::time::interval(pause);
                loop {
                    ticks.tick().await;
                    let (client, url, body) = (client.clone(), url.clone(), body(pairs));
                    tokio::spawn(async move { post(&client, &url, body).await });
                }
            });
        }
    }
    let client = reqwest::Client::new();
    let segment = format!("latency {}", fastrand::u64(..));
    let name = segment.replace(' ', "%20");
    let mut samples = Vec::new();
    for number in 1..=SAMPLES as u64 {
        let pair = json!({"user_id": format!("u{number}"), "segment": segment});
        // Not in step with the ticks.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..250))).await;
        assert_eq!(
            post(&client, from, serde_json::to_vec(&pair).unwrap()).await,
            200
        );
        let answered = Instant::now();
        loop {
            let response = client
                .get(format!("{to}/v1/segments/{name}/count"))
                .send()
                .await;
            let count: Value = response.unwrap().json().await.unwrap();
            if count["users"] == number {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        samples.push(answered.elapsed());
    }
    samples
}

/// Reads counts on all connections for a while. Returns their number.
pub(crate) async fn reads(urls: &[String], time: Duration) -> u64 {
    let (began, total, mut tasks) = (Instant::now(), Arc::new(AtomicU64::new(0)), JoinSet::new());
    for number in 0..READING {
        let (url, total) = (urls[number % urls.len()].clone(), Arc::clone(&total));
        tasks.spawn(async move {
            let client = reqwest::Client::new();
            while began.elapsed() < time {
                let segment = fastrand::u64(..SEGMENTS);
                let count = client.get(format!("{url}/v1/segments/segment-{segment}/count"));
                let response = count.send().await.unwrap();
                assert_eq!(response.status(), 200);
                response.bytes().await.unwrap();
                total.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tasks.join_all().await;
    total.load(Ordering::Relaxed)
}

/// Reads each count until it is in the memory of each service.
pub(crate) async fn warm(urls: &[String]) {
    for url in urls {
        for segment in 0..SEGMENTS {
            loop {
                let path = format!("{url}/v1/segments/segment-{segment}/count");
                let response = reqwest::get(path).await.unwrap();
                let count: Value = response.json().await.unwrap();
                if count["source"] == "memory" {
                    break;
                }
            }
        }
    }
}

/// The instant of a count.
pub(crate) async fn as_of(url: &str) -> Timestamp {
    let response = reqwest::get(format!("{url}/v1/segments/segment-0/count")).await;
    let count: Value = response.unwrap().json().await.unwrap();
    count["as_of"].as_str().unwrap().parse().unwrap()
}
