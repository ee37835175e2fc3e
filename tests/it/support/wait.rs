//! Waiting for what should happen, whenever a busy machine lets it.

use std::time::{Duration, Instant};

/// Long after anything that is waited for should have happened.
const DEADLINE: Duration = Duration::from_secs(120);

/// Asks again until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(
            began.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
