//! Erasing a user, and the receipt for it.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::ingest::erasures::{Erasures, FOLLOW_EVERY};
use crate::ingest::spool::Spool;
use domain::store::{PairStore, StoreError};
use domain::{Timestamp, UserId};

/// How long a client waits until the spool's files are searched. They go on being searched after that.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a user was erased, and what is left of them until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// In how many segments the user was.
    pub erased: u64,
    /// When, by this instance's clock. What was received by then is erased; what comes later counts.
    pub at: Timestamp,
    /// Every place that had, or may have, something of the user.
    pub places: Vec<Place>,
}

/// A place that had, or may have, something of an erased user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its short name, for programs.
    pub name: &'static str,
    /// What became of it.
    pub state: PlaceState,
    /// When nothing is left there at the latest; `None` where that is done, or not in headcount's hands.
    pub until: Option<Timestamp>,
    /// What that means, in words.
    pub note: String,
}

/// What became of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceState {
    /// Nothing of the user is there.
    Erased,
    /// It will be erased.
    Pending,
    /// Something stays.
    Remains,
}

/// What an erasure needs.
pub(super) struct Work<'a> {
    pub(super) store: &'a dyn PairStore,
    pub(super) spool: Option<&'a Spool>,
    pub(super) erasures: &'a Erasures,
    pub(super) now: Timestamp,
    /// Ends the search of the spool's files.
    pub(super) stop: &'a CancellationToken,
}

impl Work<'_> {
    pub(super) async fn erase(&self, user: &UserId<'_>) -> Result<Receipt, StoreError> {
        // First, so that nothing of theirs gets out of any spool afterwards.
        let at = match self.spool {
            Some(spool) => spool.erasure_at(self.now).await,
            None => self.now,
        };
        let erasure = self.erasures.note(user, at).await?;
        let learnt = self.erasures.learnt();
        if let Some(spool) = self.spool {
            spool.settle().await;
        }
        let erased = self.store.forget(user, erasure.at()).await?;
        let at = erasure.at();
        let mut places = vec![erased_from("store", "every pair of the user".to_owned())];
        if let Some(spool) = self.spool {
            let refused = self.store.erase_refused(&[erasure]).await;
            places.extend(refused_pairs(refused));
            spool.look();
            let heeded = tokio::select! {
                heeded = timeout(PATIENCE, spool.heeded(learnt)) => heeded.is_ok(),
                // Nobody searches any more, until the next start.
                () = self.stop.cancelled() => false,
            };
            places.push(match heeded {
                true => erased_from("spool", "this instance's files".to_owned()),
                false => Place {
                    name: "spool",
                    state: PlaceState::Pending,
                    until: None,
                    note: "this instance's files are still being searched; nothing of the user is sent out of them"
                        .to_owned(),
                },
            });
        }
        places.extend(self.store.remains(at).into_iter().map(|remains| Place {
            name: remains.place,
            state: PlaceState::Remains,
            until: remains.until,
            note: remains.what,
        }));
        if !self.store.is_live() {
            places.extend(self.elsewhere(at));
        }
        places.push(Place {
            name: "copies",
            state: PlaceState::Remains,
            until: None,
            note: "backups, exports and files that were loaded: headcount does not know of them"
                .to_owned(),
        });
        Ok(Receipt { erased, at, places })
    }

    /// What other instances still have, and what tells them.
    fn elsewhere(&self, at: Timestamp) -> [Place; 2] {
        let follow = SignedDuration::try_from(FOLLOW_EVERY).unwrap_or(SignedDuration::ZERO);
        [
            Place {
                name: "other_instances",
                state: PlaceState::Pending,
                until: at.checked_add(follow).ok(),
                note: "each erases the user from its spool and its refused pairs; one that is stopped, or can't reach \
                       the store, does so when it can, before it sends anything"
                    .to_owned(),
            },
            Place {
                name: "erasure_note",
                state: PlaceState::Remains,
                until: self.erasures.matters_until(at),
                note: "a salted hash of the user id in the store, by which other instances know whom not to deliver; \
                       from then on it expires, or the next archive run removes it"
                    .to_owned(),
            },
        ]
    }
}

fn erased_from(name: &'static str, note: String) -> Place {
    Place {
        name,
        state: PlaceState::Erased,
        until: None,
        note,
    }
}

fn refused_pairs(refused: Result<u64, StoreError>) -> Option<Place> {
    match refused {
        Ok(0) => None,
        Ok(pairs) => Some(erased_from(
            "refused_pairs",
            format!("{pairs} pairs that the store had refused, on this instance's disk"),
        )),
        Err(error) => {
            tracing::error!(%error, "refused pairs of an erased user can't be removed");
            Some(Place {
                name: "refused_pairs",
                state: PlaceState::Pending,
                until: None,
                note: "the file of refused pairs can't be rewritten now; its operator has to act: see the log"
                    .to_owned(),
            })
        }
    }
}
