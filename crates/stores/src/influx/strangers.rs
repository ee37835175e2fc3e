//! Points that another program wrote into our measurements: where they are, and how to be rid of them.

use std::time::Duration;

use super::InfluxStore;
use super::error::Error;
use super::flux::{self, Range, Types};
use super::line::{PAIR, TREND};
use super::setup::{TREND_SECONDS, shard_length};
use domain::Timestamp;
use domain::store::StoreError;

/// What stands in both buckets that is not ours, each with what to do about it. It names no value.
pub(super) async fn strangers(
    store: &InfluxStore,
    as_of: Timestamp,
) -> Result<Vec<String>, StoreError> {
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
    let mut told = Vec::new();
    for (fields, bucket, measurement, range, shard) in buckets {
        let found = store.look(fields).await?;
        for strange in &found.strange {
            told.push(format!(
                "bucket {bucket:?} has {strange}, which are not ours"
            ));
        }
        if !found.is_mixed {
            continue;
        }
        for piece in range.pieces(shard) {
            if is_strange(store, bucket, measurement, piece).await? {
                told.push(remedy(bucket, measurement, piece, shard));
            }
        }
    }
    Ok(told)
}

/// Whether a shard has points, and none whose field has our type.
async fn is_strange(
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
        "from {} to {} everything of measurement {measurement} in bucket {bucket:?} is another program's, and what \
         we write there is refused; take the token from that program, and run: influx delete --bucket '{bucket}' \
         --start {} --stop {} --predicate '_measurement=\"{measurement}\"'",
        whole.start, whole.stop, whole.start, whole.stop
    )
}
