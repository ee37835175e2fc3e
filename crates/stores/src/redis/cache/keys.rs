//! The names of keys.
//!
//! | Key | Holds |
//! |---|---|
//! | `P:{S}:counts` | hash: the last count over W seconds, as `users as_of`, in the field W |
//! | `P:segments` | sorted set: known segments, by when they were last noted; and the note that the list is complete |
//! | `P:lock` | the token of the instance that refreshes now |
//! | `P:last_run` | a constant; its TTL encodes when the last refresh of all segments began |
//!
//! P is the prefix, S the segment with braces percent-encoded. The braces around S are a hash tag: a cluster keeps
//! the keys of a segment on one node, where one script can access them all.
//!
//! Version 0.1.0 wrote `P:{S}:count:W` and `P:{S}:pending`. They are not read, and expire.

use crate::redis::{Prefix, hash_tag};
use domain::Segment;

#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    pub(super) segments: String,
    pub(super) lock: String,
    pub(super) last_run: String,
}

impl Keys {
    pub(super) fn new(prefix: &Prefix) -> Self {
        let prefix = prefix.as_str();
        Self {
            prefix: prefix.to_owned(),
            segments: format!("{prefix}:segments"),
            lock: format!("{prefix}:lock"),
            last_run: format!("{prefix}:last_run"),
        }
    }

    pub(super) fn counts(&self, segment: &Segment) -> String {
        format!("{}:{{{}}}:counts", self.prefix, hash_tag(segment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_one_hash_tag_whatever_its_name() {
        let keys = Keys::new(&Prefix::new("hc").unwrap());
        for (name, tagged) in [
            ("sports", "sports"),
            ("}{", "%7D%7B"),
            ("{a}", "%7Ba%7D"),
            ("%7B", "%257B"),
            ("Я", "Я"),
        ] {
            let segment = Segment::new(name).unwrap();
            assert_eq!(keys.counts(&segment), format!("hc:{{{tagged}}}:counts"));
        }
    }
}
