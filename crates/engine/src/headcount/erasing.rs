//! Erases a user, a segment, or a user from one segment, and reports the result as a receipt.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::erasing::Target;
use crate::ingest::erasures::{Erasures, FOLLOW_EVERY};
use crate::ingest::spool::Spool;
use crate::live::Live;
use domain::Timestamp;
use domain::store::{PairStore, StoreError};

/// How long a client waits for the search of the spool's files. The search continues after that.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of an erasure: where the pairs were erased, and which data remain until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The number of segments that the user was in, or of users that the segment had.
    pub erased: u64,
    /// The instant of the erasure by this instance's clock. Pairs received until then are erased; later pairs count.
    pub at: Timestamp,
    /// Every place that had, or may have, these data.
    pub places: Vec<Place>,
}

/// A place that had, or may have, data of an erased user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The short name, for programs.
    pub name: &'static str,
    /// Whether the data are erased there.
    pub state: PlaceState,
    /// The latest time at which the data are erased there. `None` where they are already erased, and where headcount does
    /// not control when.
    pub until: Option<Timestamp>,
    /// An explanation for people.
    pub note: String,
}

/// The state of the data in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceState {
    /// No data of the user are there.
    Erased,
    /// The data will be erased.
    Pending,
    /// Some data remain.
    Remains,
}

/// The parts and inputs of an erasure.
pub(super) struct Work<'a> {
    pub(super) store: &'a dyn PairStore,
    pub(super) live: Option<&'a Live>,
    pub(super) spool: Option<&'a Spool>,
    pub(super) erasures: &'a Erasures,
    pub(super) now: Timestamp,
    /// Ends the search of the spool's files.
    pub(super) stop: &'a CancellationToken,
}

impl Work<'_> {
    pub(super) async fn erase(&self, target: &Target<'_>) -> Result<Receipt, StoreError> {
        let what = match target {
            Target::User(_) => "the user",
            Target::Segment { .. } => "the segment",
            Target::Pair(..) => "the user in this segment",
        };
        // The note comes first, so that no spool sends these pairs afterwards.
        let at = match self.spool {
            Some(spool) => spool.erasure_at(self.now).await,
            None => self.now,
        };
        let erasure = self.erasures.note_erasure(target.erasure(at)).await?;
        let learnt = self.erasures.learnt();
        if let Some(spool) = self.spool {
            spool.settle().await;
        }
        // For the replicas, pairs that the spool has just sent were received when it sent them.
        let sent_until = self.live.map(|live| live.now().max(erasure.at()));
        let erased = target.erase_from(self.store, erasure.at()).await?;
        if let (Some(live), Some(at)) = (self.live, sent_until) {
            live.erase(target, at).await?;
        }
        let at = erasure.at();
        let mut places = vec![erased_from("store", format!("every pair of {what}"))];
        if let Some(spool) = self.spool {
            let refused = self.store.erase_refused(&[erasure]).await;
            places.extend(refused_pairs(refused));
            spool.start_search();
            let searched = tokio::select! {
                searched = timeout(SEARCH_TIMEOUT, spool.searched_for(learnt)) => searched.is_ok(),
                // The search has stopped until the next start.
                () = self.stop.cancelled() => false,
            };
            places.push(match searched {
                true => erased_from("spool", "this instance's files".to_owned()),
                false => Place {
                    name: "spool",
                    state: PlaceState::Pending,
                    until: None,
                    note: format!(
                        "this instance's files are still being searched; no pair of {what} is sent from them"
                    ),
                },
            });
        }
        places.extend(self.live.map(|_| Place {
            name: "replica_files",
            state: PlaceState::Remains,
            until: at.checked_add(live::REMAINS).ok(),
            note: format!(
                "the pairs of {what}, with hashes under the installation's key in place of user ids, in the log and the newest snapshot \
                 of live counts, until the next snapshot"
            ),
        }));
        places.extend(self.live.map(|_| Place {
            name: "change_feed",
            state: PlaceState::Remains,
            until: None,
            note: "the same, in entries of the change feed and in those that wait for it on the disks of services, until every \
                   replica has applied them: usually for ten seconds"
                .to_owned(),
        }));
        places.extend(self.store.remains(at).into_iter().map(|remains| Place {
            name: remains.place,
            state: PlaceState::Remains,
            until: remains.until,
            note: remains.what,
        }));
        if !self.store.is_live() {
            places.extend(self.elsewhere(at, what));
        }
        places.push(Place {
            name: "copies",
            state: PlaceState::Remains,
            until: None,
            note: "backups, exports and loaded files, which headcount does not track".to_owned(),
        });
        Ok(Receipt { erased, at, places })
    }

    /// What other instances still have, and the note that informs them.
    fn elsewhere(&self, at: Timestamp, what: &str) -> [Place; 2] {
        let follow = SignedDuration::try_from(FOLLOW_EVERY).unwrap_or(SignedDuration::ZERO);
        [
            Place {
                name: "other_instances",
                state: PlaceState::Pending,
                until: at.checked_add(follow).ok(),
                note: format!(
                    "each instance erases {what} from its spool and its refused pairs; an instance that is stopped, or can't \
                     reach the store, does so later, before it sends any pair"
                ),
            },
            Place {
                name: "erasure_note",
                state: PlaceState::Remains,
                until: self.erasures.matters_until(at),
                note: format!(
                    "a salted hash in the store, by which other instances recognise the pairs of {what}; after that time it \
                     expires, or the next archive run removes it"
                ),
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
                note: "the file of refused pairs can't be rewritten now; an operator must act: see the log"
                    .to_owned(),
            })
        }
    }
}
