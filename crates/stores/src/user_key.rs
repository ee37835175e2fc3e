//! What stores say when pairs were recorded with another `user_key`: each user would count twice.

/// How pairs were recorded that a store holds, beside what is configured; both are digests, none without a key.
pub(super) fn recorded(held: Option<&str>, ours: Option<&str>) -> &'static str {
    match (held, ours) {
        (None, _) => "without a user_key, and one is configured",
        (_, None) => "with a user_key, and none is configured",
        _ => "with another user_key than the configured one",
    }
}
