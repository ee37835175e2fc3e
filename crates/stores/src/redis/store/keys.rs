//! The names of keys.
//!
//! | Key | Holds |
//! |---|---|
//! | `P:{S}:pairs` | sorted set: users of a segment, by the number of the slot in which they were last seen |
//! | `P:{S}:trend:W` | the second of the newest trend point over W seconds |
//! | `P:{S}:trend:W:fine:B` | hash: users by second, for the four hours B |
//! | `P:{S}:trend:W:hours:B` | hash: second and users of the last point of each hour, for the ten days B |
//! | `P:{store}:segments` | sorted set: segments, by when pairs were last announced for them |
//! | `P:{store}:erased` | sorted set: marks of erased users, by the microsecond of the erasure |
//! | `P:{store}:properties` | hash: the properties of the installation, such as the settings of a segment |
//! | `P:{store}:meta` | hash: the resolution of the slots, a digest of `user_key`, the installation's key, and the format version of all keys |
//!
//! P is the prefix, S the segment with braces percent-encoded. The braces are a hash tag: a cluster keeps the keys of
//! a segment on one node, and the list on the node of the meta. Neither P nor S contains a brace, so the suffix after
//! the closing brace distinguishes these keys from each other and from the cache's, whatever the names are.

use crate::redis::{Prefix, hash_tag};
use domain::{Segment, Window};

#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    pub(super) segments: String,
    pub(super) erased: String,
    pub(super) properties: String,
    pub(super) meta: String,
}

impl Keys {
    pub(super) fn new(prefix: &Prefix) -> Self {
        let prefix = prefix.as_str();
        Self {
            prefix: prefix.to_owned(),
            segments: format!("{prefix}:{{store}}:segments"),
            erased: format!("{prefix}:{{store}}:erased"),
            properties: format!("{prefix}:{{store}}:properties"),
            meta: format!("{prefix}:{{store}}:meta"),
        }
    }

    pub(super) fn pairs(&self, segment: &Segment) -> String {
        format!("{}:{{{}}}:pairs", self.prefix, hash_tag(segment))
    }

    pub(super) fn trend(&self, segment: &Segment, window: Window) -> String {
        let (tag, window) = (hash_tag(segment), window.seconds());
        format!("{}:{{{tag}}}:trend:{window}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_things_share_a_key() {
        let mut seen = std::collections::HashSet::new();
        for prefix in ["hc", "hc:store", "hc:segments"] {
            let keys = Keys::new(&Prefix::new(prefix).unwrap());
            assert!(seen.insert(keys.segments.clone()));
            assert!(seen.insert(keys.meta.clone()));
            assert!(seen.insert(keys.erased.clone()));
            assert!(seen.insert(keys.properties.clone()));
            // The key that the cache uses beside them.
            assert!(seen.insert(format!("{prefix}:segments")));
            for name in ["store", "{store}", "}:pairs", "%7Bstore%7D", "a"] {
                let segment = Segment::new(name).unwrap();
                let key = keys.pairs(&segment);
                assert!(seen.insert(key.replace(":pairs", ":counts")));
                assert!(seen.insert(key), "{prefix} {name}");
            }
        }
    }
}
