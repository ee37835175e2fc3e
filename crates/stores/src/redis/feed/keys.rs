//! The names of keys.
//!
//! | Key | Holds |
//! |---|---|
//! | `P:{live}:feed` | stream of entries; the id of the entry with number g is `g-0` |
//! | `P:{live}:state` | hash: the id of the feed, number and token of its newest entry, the bytes of all entries so far; the number before the oldest entry, and the bytes before it |
//! | `P:{live}:writers` | hash: writer -> the number of its last entry, and when it was last seen in microseconds |
//! | `P:{live}:readers` | hash: reader -> the number of its position, and when it was last seen in microseconds |
//!
//! P is the prefix. All keys have one hash tag: a cluster keeps them on one node, where one script can access them all.

use crate::redis::Prefix;

/// The keys in the order in which every script gets them.
#[derive(Debug)]
pub(super) struct Keys([String; 4]);

impl Keys {
    pub(super) fn new(prefix: &Prefix) -> Self {
        Self(
            ["feed", "state", "writers", "readers"]
                .map(|name| format!("{}:{{live}}:{name}", prefix.as_str())),
        )
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.to_vec()
    }
}
