//! Notes of erasures, for instances that still have pairs of an erased user in their spool. The notes are in the bucket of
//! the pairs. Its retention removes a note when no window reaches such pairs any more.

use super::InfluxStore;
use super::flux;
use super::line;
use domain::store::StoreError;
use domain::{Erasure, Timestamp};

pub(super) async fn note(store: &InfluxStore, erasure: &Erasure) -> Result<(), StoreError> {
    let written = store
        .delivery
        .deliver(&store.options.bucket, line::erasure(erasure))
        .await;
    written.map_err(|error| match error {
        StoreError::Partly(partly) => StoreError::Rejected(format!(
            "InfluxDB refused the note of an erasure: {}",
            partly.reason
        )),
        error => error,
    })
}

pub(super) async fn since(
    store: &InfluxStore,
    since: Timestamp,
) -> Result<Vec<Erasure>, StoreError> {
    let query = flux::erasures(&store.options.bucket, since);
    let notes = store
        .rows(&query, |row| {
            let at = row.nanos("_time")?.div_euclid(1_000);
            // Another program may have written other values to this measurement.
            let at = Timestamp::from_microsecond(at).ok();
            Ok(at.and_then(|at| Erasure::from_mark(row.get("_value").ok()?, at)))
        })
        .await?;
    Ok(notes.into_iter().flatten().collect())
}
