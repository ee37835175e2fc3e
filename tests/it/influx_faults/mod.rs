//! The InfluxDB store in front of a faulty server: no panic, no wrong count, no silently lost pair.

mod queries;
mod writes;

use std::time::Duration;

use domain::store::{PairStore, StoreError};
use domain::{FingerprintKey, Segment, TimeFrame, Timestamp};
use stores::influx::{InfluxOptions, InfluxStore};

use crate::support::fault_server::FaultServer;

const SECRET_USER: &str = "secret-user-id";
/// Longer than any operation that ends.
const GENEROUS: Duration = Duration::from_secs(120);

fn frame() -> TimeFrame {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    TimeFrame::new(minutes(60), minutes(1), minutes(5)).unwrap()
}

/// Options with timeouts that a busy machine does not reach.
fn options(url: &str) -> InfluxOptions {
    InfluxOptions {
        key: Some(FingerprintKey::new([7; 16])),
        write_timeout: GENEROUS,
        write_deadline: GENEROUS,
        query_timeout: GENEROUS,
        ..InfluxOptions::new(url, "o", "b", "token", frame())
    }
}

fn store(server: &FaultServer) -> InfluxStore {
    InfluxStore::open(options(&server.url())).unwrap()
}

/// A store with short timeouts.
fn store_with_short_timeouts(server: &FaultServer) -> InfluxStore {
    let options = InfluxOptions {
        write_timeout: Duration::from_millis(300),
        write_deadline: Duration::from_millis(600),
        query_timeout: Duration::from_millis(500),
        ..options(&server.url())
    };
    InfluxStore::open(options).unwrap()
}

async fn count(store: &InfluxStore) -> Result<u64, StoreError> {
    let segment = Segment::new("s").unwrap();
    let counted = store
        .count(&segment, frame().full_window(), Timestamp::now())
        .await;
    counted.map(|count| count.users)
}
