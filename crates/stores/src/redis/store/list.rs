//! Reads the list of segments with a scan.

use std::collections::BTreeMap;

use super::{RedisStore, invalid_response};
use domain::Segment;
use domain::store::StoreError;

/// More steps than any list needs. A scan that does not end is an error, not a hang.
const MAX_SCAN_STEPS: usize = 100_000;

impl RedisStore {
    /// Returns every segment on the list with its score: when it was last in use, in Unix milliseconds.
    pub(super) async fn listed(&self) -> Result<BTreeMap<Segment, f64>, StoreError> {
        let mut listed = BTreeMap::new();
        let mut cursor = 0;
        for _ in 0..MAX_SCAN_STEPS {
            let (next, found): (u64, Vec<(Vec<u8>, f64)>) =
                self.query(self.requests.list_step(cursor)).await?;
            for (name, score) in found {
                let name = String::from_utf8_lossy(&name);
                let segment = Segment::new(&name).map_err(|_| {
                    let key = &self.requests.keys.segments;
                    StoreError::Damaged(format!(
                        "{key} in redis has a member that is not a valid segment name"
                    ))
                })?;
                listed.insert(segment, score);
            }
            cursor = next;
            if cursor == 0 {
                return Ok(listed);
            }
        }
        Err(invalid_response("a scan did not end"))
    }
}
