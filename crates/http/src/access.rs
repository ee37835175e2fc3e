//! What access to an operation requires.

use crate::auth::Scope;

/// What access to an operation requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: supervisors and load balancers have no token.
    Open,
    /// Scope `read`, unless the setting `metrics_open` is on.
    Metrics,
    /// A token with this scope.
    Needs(Scope),
    /// A token with scope `write`, which may also be in the body: then the handler checks it.
    InBody,
}
