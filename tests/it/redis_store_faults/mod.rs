//! The Redis store while its server is unavailable, full, or misconfigured, and the effects on the service.

mod cluster;
mod outages;
mod refusals;

use std::time::{Duration, Instant};

use domain::store::PairStore;
use stores::redis::store::RedisStore;

const DURABLE: [&str; 6] = [
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
];
/// The maximum recovery time on a busy machine.
const RECOVERY: Duration = Duration::from_secs(120);

async fn until_it_serves(store: &RedisStore) {
    let began = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(
            began.elapsed() < RECOVERY,
            "the store does not recover: {error}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn names(prefix: &str, number: usize) -> Vec<String> {
    (0..number).map(|n| format!("{prefix}{n}")).collect()
}
