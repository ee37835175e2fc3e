//! The in-memory table of opaque tokens by digest.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Caller, Digest, Limiter, Rates, Scopes, Tokens};
use domain::Reach;
use domain::Timestamp;

/// All tokens of a file.
#[derive(Debug, Default)]
pub(super) struct Table(HashMap<[u8; 8], Vec<Known>>);

/// A valid token and its caller.
#[derive(Debug)]
pub(super) struct Known {
    digest: Digest,
    pub(super) expires: Option<Timestamp>,
    pub(super) caller: Caller,
}

impl Table {
    /// The table of `tokens`, with `defaults` for missing rate limits. Tokens that are in the `former` table with the same
    /// rates keep their limiters, so that a reload does not reset them.
    pub(super) fn new(tokens: &Tokens, defaults: Rates, former: &Self) -> Self {
        let mut table = Self::default();
        for token in tokens.iter() {
            let rates = token.rates().or(defaults);
            let spent = former
                .find(&token.sha256)
                .and_then(|known| known.caller.limiter.clone())
                .filter(|limiter| limiter.rates() == rates);
            let caller = Caller {
                name: token.name.as_str().into(),
                id: token.sha256.bytes(),
                scopes: token.scopes.iter().copied().collect::<Scopes>(),
                // Validated by the parser. An invalid pattern would allow no segment.
                reach: token.reach().unwrap_or_else(Reach::nothing),
                limiter: spent.or_else(|| Limiter::new(rates).map(Arc::new)),
            };
            let known = Known {
                digest: token.sha256,
                expires: token.expires,
                caller,
            };
            table.0.entry(token.sha256.start()).or_default().push(known);
        }
        table
    }

    /// The token with this digest.
    pub(super) fn find(&self, digest: &Digest) -> Option<&Known> {
        let candidates = self.0.get(&digest.start())?;
        candidates.iter().find(|known| known.digest == *digest)
    }

    /// The number of tokens.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}
