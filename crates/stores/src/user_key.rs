//! The wording of the error for pairs recorded with another `user_key`: each user would count twice.

/// Describes how the pairs of a store were recorded compared to the configuration. Both arguments are digests, `None`
/// without a key.
pub(super) fn recorded(held: Option<&str>, ours: Option<&str>) -> &'static str {
    match (held, ours) {
        (None, _) => "without a user_key, and one is configured",
        (_, None) => "with a user_key, and none is configured",
        _ => "with another user_key than the configured one",
    }
}
