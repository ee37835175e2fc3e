//! The list of segments, read step by step.

use std::collections::BTreeMap;

use super::{RedisStore, nonsense};
use domain::Segment;
use domain::store::StoreError;

/// More steps than any list needs; a scan that does not end is an error, not a hang.
const MAX_SCAN_STEPS: usize = 100_000;

impl RedisStore {
    /// Every segment on the list, with the score it has there: when it was in use last, in milliseconds.
    pub(super) async fn listed(&self) -> Result<BTreeMap<Segment, f64>, StoreError> {
        let mut listed = BTreeMap::new();
        let mut cursor = 0;
        for _ in 0..MAX_SCAN_STEPS {
            let (next, found): (u64, Vec<(Vec<u8>, f64)>) =
                self.ask(self.asks.list_step(cursor)).await?;
            for (name, score) in found {
                let name = String::from_utf8_lossy(&name);
                let segment = Segment::new(&name).map_err(|_| {
                    let key = &self.asks.keys.segments;
                    StoreError::Damaged(format!("{key} in redis lists what is no segment"))
                })?;
                listed.insert(segment, score);
            }
            cursor = next;
            if cursor == 0 {
                return Ok(listed);
            }
        }
        Err(nonsense("a scan without end"))
    }
}
