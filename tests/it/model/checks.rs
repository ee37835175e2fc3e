//! What a response may contain, given the model.

use std::collections::BTreeMap;

use domain::{Clock, Count, Membership, Timestamp, Window};
use engine::counts::{CountResult, Source};

use super::clock::{Moment, Time};
use super::steps::{MINUTE, SEGMENTS};
use super::truth::{Sent, Truth};
use super::users::Users;

/// The state when a call began.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    pub moment: Moment,
    /// The instance's clock.
    pub clock: Timestamp,
}

/// The greatest age of what a live process returns, in microseconds: a minute, and what follows it.
const LIVE_AGE: Moment = 90_000_000;

pub fn slot(instant: Timestamp) -> u64 {
    u64::try_from(instant.as_second()).unwrap() / MINUTE
}

fn slots(as_of: Timestamp, window: u64) -> std::ops::RangeInclusive<u64> {
    slot(as_of) + 1 - window..=slot(as_of)
}

/// Returns an error formatted like `format!`, unless the condition holds.
macro_rules! promise {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}
pub(super) use promise;

/// What a count is based on.
#[derive(Debug, Clone, Copy)]
pub struct Basis {
    /// The count was made after this moment.
    pub by: Option<Moment>,
    /// It may come from a live process.
    pub is_live: bool,
}

/// Checks a count of a segment as of an instant. It contains every user that was acknowledged by `basis.by`, or before any
/// clock returned that instant, and no user that can't be in it.
pub fn count(
    truth: &Truth,
    time: &Time,
    segment: usize,
    window: Window,
    count: Count,
    basis: Basis,
    until: Moment,
) -> Result<(), String> {
    let told = time.before(count.as_of);
    let began = basis.by.map_or(told, |by| by.max(told));
    let is_live = basis.is_live;
    let slots = slots(count.as_of, u64::from(window.slots()));
    let ahead = ahead(truth, time, segment, count.as_of);
    let mut sure = truth.sure(segment, slots.clone(), began, is_live);
    sure.retain(|users| !users.meets(ahead));
    let possible = truth.possible(segment, slots, (began, until), is_live);
    promise!(
        count.users >= Users::fewest(&sure) as u64,
        "{:?} over {} slots has {} users as of {}, although {sure:?} were acknowledged before",
        SEGMENTS[segment],
        window.slots(),
        count.users,
        count.as_of
    );
    promise!(
        count.users <= possible.len() as u64,
        "{:?} over {} slots has {} users as of {}, although only {possible:?} are possible",
        SEGMENTS[segment],
        window.slots(),
        count.users,
        count.as_of
    );
    Ok(())
}

/// Where clocks differ: the users that one of them saw after `as_of`.
fn ahead(truth: &Truth, time: &Time, segment: usize, as_of: Timestamp) -> Users {
    if !time.are_apart() {
        return Users::default();
    }
    let later = truth.of(segment, slot(as_of) + 1..=u64::MAX);
    later.map(|pair| pair.users(0, false)).collect()
}

/// Checks age and provenance.
pub fn provenance(
    time: &Time,
    answer: &CountResult,
    (begun, now): (Begun, Timestamp),
    trusted_for: std::time::Duration,
    was_faulty: bool,
) -> Result<(), String> {
    let as_of = answer.count.as_of;
    promise!(
        as_of <= time.latest(),
        "as of {as_of}, although the latest clock shows {}",
        time.latest()
    );
    let age = begun.clock.duration_since(as_of);
    let trusted_for = trusted_for.try_into().unwrap();
    let is_old = age > trusted_for;
    // A count that took the store long is as old as the call, and no older one was used in its place.
    let is_kept = answer.source != Source::Store;
    let is_repeated = is_kept && answer.source != Source::Live;
    promise!(
        answer.stale || !is_old || !is_kept,
        "a count from {:?} is {age:#} old and not marked as stale",
        answer.source
    );
    let is_ahead = as_of.duration_since(now) > trusted_for;
    promise!(
        answer.stale || !is_ahead || !is_repeated,
        "a count from {:?} is {:#} ahead and not marked as stale",
        answer.source,
        as_of.duration_since(now)
    );
    promise!(
        !answer.stale || was_faulty,
        "stale, although the store was available all the time"
    );
    Ok(())
}

/// Checks the memberships of a user: every segment that surely contains the user, and none that can't.
pub fn memberships(
    truth: &Truth,
    time: &Time,
    (user, is_live): (usize, bool),
    found: &[Membership],
    window: u64,
    begun: Begun,
    (now, until): (Timestamp, Moment),
) -> Result<(), String> {
    // Those of a live process are as of an earlier instant.
    let (since, earlier) = match is_live {
        true => (begun.moment - LIVE_AGE, 2),
        false => (begun.moment, 0),
    };
    let found: BTreeMap<_, _> = found
        .iter()
        .map(|membership| (membership.segment.as_str(), membership.last_seen.number()))
        .collect();
    for (index, name) in SEGMENTS.into_iter().enumerate() {
        let of_user = |first: u64| {
            let pairs = truth.of(index, first..=u64::MAX);
            pairs.filter(move |pair| pair.users(since, is_live).has(user))
        };
        let is_only = |pair: &&Sent| pair.users(since, is_live) == Users::one(user);
        let sure = of_user(slot(now) + 1 - window).filter(is_only);
        let sure = sure.filter(|pair| pair.is_sure(since, is_live));
        let sure = sure.map(|pair| pair.slot).max();
        let possible = of_user(slot(begun.clock) + 1 - window - earlier)
            .filter(|pair| pair.is_possible(since, until, is_live))
            .map(|pair| pair.slot)
            .collect::<Vec<_>>();
        let seen = found.get(name).copied();
        let is_ahead = ahead(truth, time, index, begun.clock).has(user);
        promise!(
            seen >= sure || is_ahead,
            "user {user} was seen in {name:?} in {sure:?}, but the response has {seen:?}"
        );
        promise!(
            seen.is_none_or(|seen| possible.contains(&seen)),
            "user {user} can have been seen in {name:?} in {possible:?}, but the response has {seen:?}"
        );
    }
    Ok(())
}

/// The instant that a clock last returned. Reading the clock would advance it.
pub fn last(clock: &super::clock::SteadyTestClock) -> Timestamp {
    let last = clock.last();
    if last == Timestamp::UNIX_EPOCH {
        return clock.now();
    }
    last
}
