//! The names of keys.
//!
//! | Key | Holds |
//! |---|---|
//! | `P:{live}:counts` | hash: segment -> users per window; the field with the empty name is the token of the board |
//! | `P:{live}:tick` | hash: owner, fence, revision, `as_of`, address, complete and `at` (when published) of the newest tick; the revision and token of the newest entry of `delta`; the token of the board; the bytes of all changes so far |
//! | `P:{live}:delta` | stream: the changes of each tick that had some; the id of an entry is `fence-revision` |
//! | `P:{live}:lock` | string: the owner; expires |
//! | `P:{live}:fence` | hash: the newest fence and its owner |
//!
//! P is the prefix. All keys have one hash tag: a cluster keeps them on one node, where one script can access them all.

use crate::redis::Prefix;

/// The keys in the order in which every script gets them.
#[derive(Debug)]
pub(super) struct Keys([String; 5]);

impl Keys {
    pub(super) fn new(prefix: &Prefix) -> Self {
        let names = ["counts", "tick", "delta", "lock", "fence"];
        Self(names.map(|name| format!("{}:{{live}}:{name}", prefix.as_str())))
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.to_vec()
    }
}
