//! Removes a segment: its pairs in steps, then its trend.

use super::error::Error;
use super::queries::{DROP_PAIRS, DROP_TREND};
use super::record::with_retries;
use super::{PostgresStore, number_of, only};
use domain::Segment;

/// Pairs that one statement removes: a few hundred milliseconds.
const AT_ONCE: i64 = 20_000;

/// Returns the number of removed pairs with a slot from `first` to `last`.
pub(super) async fn segment(
    store: &PostgresStore,
    segment: &Segment,
    (first, last): (i64, i64),
) -> Result<u64, Error> {
    let mut users = 0;
    loop {
        // After a lost connection, a step may have been done although it is repeated: then fewer are counted.
        let step = with_retries(store, || async {
            let mut session = store.writes.session().await?;
            let rows = session
                .query(DROP_PAIRS, &[&segment.as_str(), &AT_ONCE, &first, &last])
                .await?;
            let row = only(&rows)?;
            Ok((number_of(row, 0)?, number_of(row, 1)?))
        });
        let (removed, counted) = step.await?;
        users += counted;
        if removed < AT_ONCE.unsigned_abs() {
            break;
        }
    }
    with_retries(store, || async {
        let mut session = store.writes.session().await?;
        session.execute(DROP_TREND, &[&segment.as_str()]).await
    })
    .await?;
    Ok(users)
}
