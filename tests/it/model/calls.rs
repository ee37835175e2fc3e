//! Calls of clients. Each runs as a separate task and returns whenever it can.

use std::sync::Arc;

use domain::store::StoreError;
use domain::{Clock, Count, Membership, Timestamp, UserId};
use engine::Headcount;
use engine::counts::{CountError, CountResult, Listed};
use engine::headcount::MergeError;
use engine::ingest::{Durability, IngestError, Intake};
use engine::refresher::Outcome;
use jiff::SignedDuration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::checks::{Begun, last, slot};
use super::clock::Moment;
use super::instance::Site;
use super::steps::{SEGMENTS, Seen, Step, USERS, WINDOWS};
use super::truth::{Became, Erasing, LiveDoubt, Merging, Sent};
use super::users::Users;
use super::world::{World, segment};

/// The state at the beginning of a call.
#[derive(Debug)]
pub struct Call {
    pub number: usize,
    pub at: usize,
    pub step: Step,
    pub begun: Begun,
    pub began: Instant,
    /// For an erasure: the user, and the latest slots in segments that surely contain the user.
    pub erasing: Option<(Erasing, Vec<u64>)>,
    /// For an erasure: how often the store had erased the user before.
    pub erased_before: usize,
    /// For a merge: the same.
    pub merging: Option<(Merging, Vec<u64>)>,
}

/// A call in flight.
#[derive(Debug)]
pub struct Running {
    pub call: Call,
    pub task: JoinHandle<CallResult>,
}

#[derive(Debug)]
pub enum CallResult {
    Wrote(Result<Durability, IngestError>),
    Counted(Result<CountResult, CountError>),
    Listed(Result<Arc<[Listed]>, CountError>),
    Members(Result<Vec<Membership>, StoreError>),
    Trend(Result<Vec<Count>, StoreError>),
    Refreshed(Result<Outcome, StoreError>),
    Archived(Result<u64, StoreError>),
    Erased(Result<u64, StoreError>),
    Merged(Result<u64, MergeError>),
}

impl CallResult {
    /// Whether the call failed.
    pub fn is_error(&self) -> bool {
        match self {
            Self::Wrote(answer) => answer.is_err(),
            Self::Counted(answer) => answer.is_err(),
            Self::Listed(answer) => answer.is_err(),
            Self::Members(answer) => answer.is_err(),
            Self::Trend(answer) => answer.is_err(),
            Self::Refreshed(answer) => answer.is_err(),
            Self::Archived(answer) | Self::Erased(answer) => answer.is_err(),
            Self::Merged(answer) => answer.is_err(),
        }
    }
}

impl World {
    /// Starts the call of a step.
    pub fn call(&mut self, step: &Step) {
        let (Step::Write { at, .. }
        | Step::Count { at, .. }
        | Step::List { at }
        | Step::Members { at, .. }
        | Step::Trend { at, .. }
        | Step::Refresh { at, .. }
        | Step::Archive { at }
        | Step::Forget { at, .. }
        | Step::Merge { at, .. }) = *step
        else {
            unreachable!("{step:?} is not a call");
        };
        let at = at % self.instances.len();
        self.requests += 1;
        let mut call = Call {
            number: self.requests,
            at,
            step: step.clone(),
            begun: self.begin(at),
            began: Instant::now(),
            erasing: None,
            erased_before: 0,
            merging: None,
        };
        let headcount = Arc::clone(&self.instances[at].headcount);
        let task = match *step {
            Step::Write { ref pairs, .. } => {
                let batch = self.send(at, call.begun.moment, pairs).finish();
                tokio::spawn(async move {
                    let kept = headcount.ingest().accept(batch).await;
                    CallResult::Wrote(kept.map(|kept| kept.durability))
                })
            }
            Step::Forget { user, .. } => {
                let there = self.surely_in(user, call.begun);
                // The erasure that runs first removes the pairs. The number that the others find is undefined.
                let others = self.running.iter_mut();
                for (erasing, there) in others.filter_map(|other| other.call.erasing.as_mut()) {
                    if erasing.is_of(user) {
                        there.clear();
                    }
                }
                let others = self.running.iter_mut();
                for (_, there) in others.filter_map(|other| other.call.merging.as_mut()) {
                    there.clear();
                }
                let latest = self.shared.time.latest();
                let is_behind = self.instances[at].clock.now() <= latest;
                call.erased_before = self.times_erased(user);
                call.erasing = Some((self.truth.begin_to_erase(user, at, is_behind), there));
                tokio::spawn(async move {
                    let user = UserId::new(USERS[user]).unwrap();
                    CallResult::Erased(headcount.forget(user).await.map(|it| it.erased))
                })
            }
            Step::Merge { from, into, .. } => {
                let there = self.surely_in(from, call.begun);
                // Whichever runs first finds the pairs.
                let others = self.running.iter_mut();
                for (_, there) in others.filter_map(|other| other.call.erasing.as_mut()) {
                    there.clear();
                }
                let merging = self.begin_to_merge(at, from, into, call.begun.moment);
                call.merging = Some((merging, there));
                tokio::spawn(async move { CallResult::Merged(merge(&headcount, from, into).await) })
            }
            ref other => self.ask(headcount, other),
        };
        self.running.push(Running { call, task });
    }

    fn ask(&self, headcount: Arc<Headcount>, step: &Step) -> JoinHandle<CallResult> {
        match *step {
            Step::Count {
                segment: name,
                window,
                fresh,
                ..
            } => {
                let (segment, window) = (segment(name), self.window(window));
                tokio::spawn(async move {
                    CallResult::Counted(headcount.counts().get(&segment, window, fresh).await)
                })
            }
            Step::Members { user, .. } => tokio::spawn(async move {
                let user = UserId::new(USERS[user]).unwrap();
                CallResult::Members(headcount.memberships(user).await)
            }),
            Step::Trend { segment: name, .. } => {
                let (segment, window) = (segment(name), self.window(0));
                let to = self.shared.time.latest();
                tokio::spawn(async move {
                    let from = Timestamp::UNIX_EPOCH;
                    let trend = headcount.counts().trend(&segment, window, from, to, None);
                    CallResult::Trend(trend.await)
                })
            }
            Step::Refresh { only, .. } => {
                let only = only.map(segment);
                tokio::spawn(async move {
                    CallResult::Refreshed(headcount.refresh(only.as_ref()).await)
                })
            }
            Step::Archive { .. } => {
                tokio::spawn(async move { CallResult::Archived(headcount.archive().await) })
            }
            _ => {
                let full = self.window(0);
                tokio::spawn(async move { CallResult::Listed(headcount.counts().list(full).await) })
            }
        }
    }

    pub fn begin(&self, at: usize) -> Begun {
        Begun {
            moment: self.shared.time.note(),
            clock: last(&self.instances[at].clock),
        }
    }

    /// Passes pairs to the service, which must reject the invalid ones.
    fn send(&mut self, at: usize, sent: Moment, pairs: &[(usize, usize, Seen)]) -> Intake {
        let instance = &self.instances[at];
        let mut intake = instance.headcount.ingest().intake(pairs.len());
        let now = instance.clock.last();
        let mut received = Vec::new();
        for &(user, segment, seen) in pairs {
            let (at_instant, expected) = place(seen, now);
            let pushed = intake.push(USERS[user], SEGMENTS[segment], at_instant);
            let code = pushed.err().map(|error| error.code());
            assert_eq!(code, expected.err(), "{seen:?} at {now}");
            let Ok(slot) = expected else { continue };
            let sent = Sent {
                request: self.requests,
                user,
                recorded_as: None,
                counts_as: user,
                also: Vec::new(),
                segment,
                slot,
                at,
                sent,
                received: now,
                became: Became::UnderWay,
                erased: None,
                is_in_doubt: false,
                is_unknown: false,
                may_be_missing: false,
                live: LiveDoubt::default(),
            };
            received.push(sent);
        }
        for sent in received {
            let has_read = self.has_read_merges_of(at, sent.user);
            self.truth.send(sent, now, has_read);
        }
        intake
    }

    /// The latest slots in the segments that surely contain a user.
    fn surely_in(&self, user: usize, begun: Begun) -> Vec<u64> {
        let first = slot(begun.clock) + 1 - WINDOWS[0];
        let latest = (0..SEGMENTS.len()).filter_map(|segment| {
            let pairs = self.truth.of(segment, first..=u64::MAX);
            let sure = pairs.filter(|pair| {
                let is_user = pair.users(begun.moment, false) == Users::one(user);
                is_user && pair.is_sure(begun.moment, false)
            });
            sure.map(|pair| pair.slot).max()
        });
        latest.collect()
    }

    /// How often the store has erased the user. A service also does that after it has sent pairs of the user from its spool.
    pub fn times_erased(&self, user: usize) -> usize {
        match &self.shared.site {
            Site::Local { store_backend, .. } => store_backend.times_erased(USERS[user]),
            Site::Remote(_) => 0,
        }
    }

    /// The instance no longer exists: its calls get no response.
    pub fn abandon(&mut self, at: usize) {
        let (gone, running): (Vec<_>, Vec<_>) = self
            .running
            .drain(..)
            .partition(|running| running.call.at == at);
        self.running = running;
        let now = self.shared.time.note();
        for Running { call, task } in gone {
            task.abort();
            self.truth.settle(call.number, Became::Refused);
            if let Some((erasing, _)) = &call.erasing {
                let until = self.shared.time.latest();
                self.truth.end_erasing(erasing, false, now, until);
            }
            if let Some((merging, _)) = &call.merging {
                let until = self.shared.time.latest();
                self.truth.end_merging(merging, false, (now, until), false);
            }
        }
        self.known.retain(|(of, _, _), _| *of != at);
    }
}

/// Merges users as a client does.
pub async fn merge(headcount: &Headcount, from: usize, into: usize) -> Result<u64, MergeError> {
    let [from, into] = [from, into].map(|user| UserId::new(USERS[user]).unwrap());
    headcount.merge(from, into).await
}

/// The instant to send, and the slot in which the pair must count or the code with which it must be rejected.
fn place(seen: Seen, now: Timestamp) -> (Option<Timestamp>, Result<u64, &'static str>) {
    let by = |seconds: i64| Some(now + SignedDuration::from_secs(seconds));
    match seen {
        Seen::Now => (None, Ok(slot(now))),
        Seen::Ahead(seconds) if seconds > 300 => (by(i64::from(seconds)), Err("in_future")),
        Seen::Ahead(seconds) => (by(i64::from(seconds)), Ok(slot(now))),
        Seen::Ago(seconds) => {
            let at = by(-i64::from(seconds));
            let slot_then = slot(at.unwrap());
            match slot_then + WINDOWS[0] > slot(now) {
                true => (at, Ok(slot_then)),
                false => (at, Err("expired")),
            }
        }
    }
}
