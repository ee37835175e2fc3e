//! The token with which services ask a live process.

use std::fmt;

use super::{Caller, Digest, Invalid, Scope, Scopes};
use domain::Reach;

/// Checks the token of services, which is known once the store has returned the installation's key.
pub(super) struct Services(Box<dyn Fn() -> Option<String> + Send + Sync>);

impl Services {
    pub(super) fn new(token: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Box::new(token))
    }

    /// The caller whose token has this digest.
    pub(super) fn check(&self, digest: Digest) -> Result<Caller, Invalid> {
        let expected = (self.0)().map(|token| Digest::of(token.as_bytes()));
        if expected != Some(digest) {
            return Err(Invalid::Unknown);
        }
        Ok(Caller {
            name: "service".into(),
            id: digest.bytes(),
            scopes: Scopes::from_iter([Scope::Read, Scope::Users, Scope::Admin]),
            reach: Reach::default(),
            limiter: None,
        })
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Services(..)")
    }
}
