//! The opaque tokens in memory, found by digest.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Caller, Digest, Limiter, Rates, Scopes, Tokens};
use domain::Reach;
use domain::Timestamp;

/// All tokens of a file.
#[derive(Debug, Default)]
pub(super) struct Table(HashMap<[u8; 8], Vec<Known>>);

/// A token that somebody may come with.
#[derive(Debug)]
pub(super) struct Known {
    digest: Digest,
    pub(super) expires: Option<Timestamp>,
    pub(super) caller: Caller,
}

impl Table {
    /// The table of `tokens`, with limits of `defaults` where they have none. What the tokens of the `former` table
    /// have spent stays spent.
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
                // Checked when it was parsed; one that can't be would reach nothing.
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

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}
