//! Waiting for a condition, for as long as a busy machine may need.

use std::time::{Duration, Instant};

/// The timeout of every wait, far above the usual duration.
const DEADLINE: Duration = Duration::from_secs(120);

/// Polls until the condition holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(
            began.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
