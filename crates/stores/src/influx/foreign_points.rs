//! Finds foreign points, which another program wrote into the measurements of pairs and trends, and how to delete them.

use std::time::Duration;

use super::InfluxStore;
use super::error::Error;
use super::flux::{self, Range, Types};
use super::line::{PAIR, TREND};
use super::setup::{TREND_SECONDS, shard_length};
use domain::Timestamp;
use domain::store::StoreError;

/// The foreign points in both buckets, each finding with its remedy. It never contains a field value.
pub(super) async fn find(store: &InfluxStore, as_of: Timestamp) -> Result<Vec<String>, StoreError> {
    let options = &store.options;
    let trend_range = Range {
        start: as_of
            .saturating_sub(Duration::from_secs(TREND_SECONDS))
            .unwrap_or(Timestamp::UNIX_EPOCH),
        stop: as_of,
    };
    let buckets = [
        (
            &store.fields,
            &options.bucket,
            PAIR,
            store.full_range(as_of),
            store.shard,
        ),
        (
            &store.trend_fields,
            &options.trend_bucket,
            TREND,
            trend_range,
            shard_length(TREND_SECONDS),
        ),
    ];
    let mut findings = Vec::new();
    for (fields, bucket, measurement, range, shard) in buckets {
        let found = store.look(fields).await?;
        for foreign in &found.foreign {
            findings.push(format!(
                "bucket {bucket:?} has {foreign}, which another program wrote"
            ));
        }
        if !found.is_mixed {
            continue;
        }
        for piece in range.pieces(shard) {
            if is_foreign(store, bucket, measurement, piece).await? {
                findings.push(remedy(bucket, measurement, piece, shard));
            }
        }
    }
    Ok(findings)
}

/// Whether a shard has points, but none with the field type that this program writes.
async fn is_foreign(
    store: &InfluxStore,
    bucket: &str,
    measurement: &str,
    piece: Range,
) -> Result<bool, StoreError> {
    let mut has = Vec::new();
    for types in [Types::Ours, Types::Any] {
        let query = flux::any_point(bucket, measurement, piece, types);
        let rows = store.rows(&query, |_| Ok::<_, Error>(())).await?;
        has.push(!rows.is_empty());
    }
    Ok(has == [false, true])
}

fn remedy(bucket: &str, measurement: &str, piece: Range, shard: Duration) -> String {
    let whole = Range::shard_at(piece.start, shard);
    format!(
        "from {} to {} another program wrote all points of measurement {measurement} in bucket {bucket:?}, and InfluxDB \
         refuses headcount's points there; revoke that program's token, and run: influx delete --bucket '{bucket}' \
         --start {} --stop {} --predicate '_measurement=\"{measurement}\"'",
        whole.start, whole.stop, whole.start, whole.stop
    )
}
