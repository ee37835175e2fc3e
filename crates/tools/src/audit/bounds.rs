//! The bounds of the difference between a cached count and a recount.
//!
//! A cached count `c` is exact as of T0, in slot s0. A recount `r` is exact as of T1, in slot s1, not earlier. With a
//! window of N slots, the slots `s0 - N + 1 ..= s1 - N` have left the window in between; the slots `s0 + 1 ..= s1` are
//! new in it.
//!
//! **Upper bound, `r <= c + seen`.** `seen` is the number of users that the store has in the slots `s0 ..= s1`, counted
//! after the recount. A user in `r` but not in `c` has a pair in the window that the count at T0 did not include. A pair that
//! was in the store by then, in a slot up to s0, would have been included: the window as of T1 has no older slot than that of
//! T0. So the pair was recorded since. A pair that is recorded when it is received lies in the slot of its receipt, which is
//! s0 or later: its user is one of `seen`. Pairs that are received with an earlier instant are not: if such pairs were loaded
//! since T0, a count is too low until the next refresh, although it was correct. This assumes that the clocks of instances
//! agree to within a slot.
//!
//! **Lower bound, `r >= c - left - hidden`.** `left` is the number of users with a pair in the slots that have left the window, as
//! far as the store still has them. A user in `c` but not in `r` had a slot in the window as of T0 and has none as of T1:
//! their latest pair is in exactly those slots. A store that keeps every slot also counts users there who came again
//! since; that only widens the bound. If no slot has left, `left` is 0 whatever the store has. If the store may have
//! removed such pairs already (by archiving, or by the retention of the server), or if all slots of the window are new,
//! `left` is unknown and `r` has no lower bound. `hidden` is not zero if `c` has every user and the store hides some of them:
//! see [`domain::hidden_at_most`].
//!
//! **A count outside of the bounds** was never correct, or the cache or the store was changed later. An erasure is one
//! such change: a user who was erased since T0 leaves no trace, and the cached count is too high by one until the next
//! refresh.

use std::fmt;

use domain::Slot;

/// The numbers from which a cached count is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The cached number of users.
    pub cached: u64,
    /// The slot of the cached count.
    pub cached_slot: Slot,
    /// The number of users that the store counts now.
    pub recounted: u64,
    /// The slot of the recount.
    pub recounted_slot: Slot,
    /// Users with a pair in the slots from that of the cached count to that of the recount, counted after the recount; `None`
    /// when unknown. It matters if the cached count is lower.
    pub seen: Option<u64>,
    /// Users with a pair in the slots that left the window in between; `None` when unknown. It matters if the cached count is
    /// higher.
    pub left: Option<u64>,
    /// Users of the cached count whom the store may hide.
    pub hidden: u64,
}

/// The verdict on a cached count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It equals the recount.
    Equal,
    /// There is no cached count.
    NotCached,
    /// It is later than the recount, so it can't be judged.
    Newer,
    /// There is no cached count, because the store counts live.
    Live,
    /// It is too low, and up to this number of users who were seen since explain it.
    Seen(u64),
    /// It is too low, and the number of users who were seen since is unknown.
    SeenUnknown,
    /// It is too high, and up to this number of users who left the window explain it.
    Left(u64),
    /// It is too high, and the number of users who left the window is unknown.
    LeftUnknown,
    /// It is too high, and up to this number of users whom the store hides explain it.
    Hidden(u64),
    /// It is too low by this much more than the users who were seen since explain.
    TooLow(u64),
    /// It is too high by this much more than the users who left the window or are hidden explain.
    TooHigh(u64),
}

/// Judges a cached count; see the [module](self) for the bounds.
pub fn judge(evidence: &Evidence) -> Verdict {
    let Evidence {
        cached, recounted, ..
    } = *evidence;
    let passed = evidence
        .recounted_slot
        .number()
        .checked_sub(evidence.cached_slot.number());
    let Some(passed) = passed else {
        return Verdict::Newer;
    };
    if recounted == cached {
        return Verdict::Equal;
    }
    if recounted > cached {
        return match evidence.seen {
            None => Verdict::SeenUnknown,
            Some(seen) => match (recounted - cached).checked_sub(seen) {
                None | Some(0) => Verdict::Seen(seen),
                Some(beyond) => Verdict::TooLow(beyond),
            },
        };
    }
    let left = if passed == 0 { Some(0) } else { evidence.left };
    let Some(left) = left else {
        return Verdict::LeftUnknown;
    };
    match (cached - recounted).checked_sub(left) {
        None | Some(0) => Verdict::Left(left),
        Some(beyond) if beyond <= evidence.hidden => Verdict::Hidden(evidence.hidden),
        Some(beyond) => Verdict::TooHigh(beyond - evidence.hidden),
    }
}

impl Verdict {
    /// Whether the difference is within the bounds.
    pub fn is_explained(self) -> bool {
        !matches!(self, Self::TooLow(_) | Self::TooHigh(_))
    }

    /// A stable name for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::NotCached => "not_cached",
            Self::Newer => "newer",
            Self::Live => "live",
            Self::Seen(_) => "seen",
            Self::SeenUnknown => "seen_unknown",
            Self::Left(_) => "left",
            Self::LeftUnknown => "left_unknown",
            Self::Hidden(_) => "hidden",
            Self::TooLow(_) => "too_low",
            Self::TooHigh(_) => "too_high",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => f.write_str("equal"),
            Self::NotCached => f.write_str("not cached"),
            Self::Newer => f.write_str("refreshed meanwhile"),
            Self::Live => f.write_str("counted live"),
            Self::Seen(users) => write!(f, "up to {users} seen since"),
            Self::SeenUnknown => f.write_str("how many were seen since is unknown"),
            Self::Left(users) => write!(f, "up to {users} left the window"),
            Self::LeftUnknown => f.write_str("how many left the window is unknown"),
            Self::Hidden(users) => write!(f, "up to {users} hidden by the store"),
            Self::TooLow(by) => write!(f, "UNEXPLAINED: {by} too low"),
            Self::TooHigh(by) => write!(f, "UNEXPLAINED: {by} too high"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn verdict(
        (cached, recounted): (u64, u64),
        slots: u64,
        seen: Option<u64>,
        left: Option<u64>,
    ) -> Verdict {
        judge(&Evidence {
            cached,
            cached_slot: Slot::new(100),
            recounted,
            recounted_slot: Slot::new(100 + slots),
            seen,
            left,
            hidden: 0,
        })
    }

    #[test]
    fn nothing_allows_a_difference_when_nothing_was_seen_and_no_slot_left() {
        assert_eq!(verdict((7, 7), 0, Some(0), None), Verdict::Equal);
        assert_eq!(verdict((7, 8), 0, Some(0), None), Verdict::TooLow(1));
        // Regardless of what the store reports for slots that have not left.
        assert_eq!(verdict((7, 5), 0, Some(9), Some(9)), Verdict::TooHigh(2));
        assert_eq!(verdict((7, 5), 0, None, None), Verdict::TooHigh(2));
    }

    #[test]
    fn users_who_were_seen_allow_as_many_more_and_none_fewer() {
        assert_eq!(verdict((7, 9), 0, Some(2), None), Verdict::Seen(2));
        assert_eq!(verdict((7, 10), 5, Some(2), Some(0)), Verdict::TooLow(1));
        assert_eq!(verdict((7, 6), 5, Some(2), Some(0)), Verdict::TooHigh(1));
        assert_eq!(verdict((7, 99), 0, None, None), Verdict::SeenUnknown);
    }

    #[test]
    fn users_who_left_allow_as_many_fewer_and_none_more() {
        assert_eq!(verdict((7, 4), 1, Some(0), Some(3)), Verdict::Left(3));
        assert_eq!(verdict((7, 3), 1, Some(0), Some(3)), Verdict::TooHigh(1));
        assert_eq!(verdict((7, 8), 1, Some(0), Some(3)), Verdict::TooLow(1));
        assert_eq!(verdict((7, 0), 1, Some(0), None), Verdict::LeftUnknown);
    }

    #[test]
    fn hidden_users_allow_as_many_fewer_than_those_who_left() {
        let verdict = |recounted, hidden| {
            judge(&Evidence {
                cached: 100,
                cached_slot: Slot::new(100),
                recounted,
                recounted_slot: Slot::new(101),
                seen: Some(0),
                left: Some(3),
                hidden,
            })
        };
        assert_eq!(verdict(97, 2), Verdict::Left(3));
        assert_eq!(verdict(95, 2), Verdict::Hidden(2));
        assert_eq!(verdict(94, 2), Verdict::TooHigh(1));
        assert_eq!(verdict(101, 2), Verdict::TooLow(1));
    }

    #[test]
    fn a_count_made_after_the_recount_is_not_judged() {
        let newer = Evidence {
            cached: 7,
            cached_slot: Slot::new(101),
            recounted: 100,
            recounted_slot: Slot::new(100),
            seen: Some(0),
            left: Some(0),
            hidden: 0,
        };
        assert_eq!(judge(&newer), Verdict::Newer);
    }

    /// The window of the histories below, in slots.
    const N: u64 = 6;

    #[derive(Debug, Clone)]
    struct History {
        /// Pairs (user, age in slots) recorded before the cached count.
        before: Vec<(u8, u64)>,
        /// Slots that pass until the recount.
        passed: u64,
        /// Pairs recorded since (user, age in slots, slots passed by then).
        since: Vec<(u8, u64, u64)>,
        /// Users of the recount whom the store hides.
        hides: u64,
        /// Whether the store keeps every slot of a pair.
        keeps_all: bool,
    }

    fn histories() -> impl Strategy<Value = History> {
        let before = prop::collection::vec((0..12_u8, 0..N), 0..30);
        let since = prop::collection::vec((0..12_u8, 0..N, 0..9_u64), 0..8);
        let histories = (before, 0..9_u64, since, 0..3_u64, any::<bool>());
        histories.prop_map(|(before, passed, since, hides, keeps_all)| History {
            before,
            passed,
            since,
            hides,
            keeps_all,
        })
    }

    proptest! {
        /// For every history and both kinds of stores: correct counts are explained, but for pairs of earlier slots that were
        /// recorded since, and counts outside of the bounds are not.
        #[test]
        fn the_bounds_hold_for_every_history(history in histories(), forged in 0..30_u64) {
            let s0 = 1_000;
            let s1 = s0 + history.passed;
            let counted = |pairs: &HashMap<u8, Vec<u64>>, from: u64, to: u64| {
                let users = pairs.iter().filter(|(_, slots)| {
                    let latest = slots.iter().max().into_iter();
                    let kept: Vec<_> = if history.keeps_all { slots.iter().collect() } else { latest.collect() };
                    kept.into_iter().any(|slot| (from..=to).contains(slot))
                });
                users.map(|(user, _)| *user).collect::<HashSet<u8>>().len() as u64
            };
            let mut pairs: HashMap<u8, Vec<u64>> = HashMap::new();
            for (user, age) in &history.before {
                pairs.entry(*user).or_default().push(s0 - age);
            }
            let cached = counted(&pairs, s0 + 1 - N, s0);
            let mut late = HashSet::new();
            for (user, age, passed) in &history.since {
                // Late by up to a window, at any time in between.
                let slot = s0 + passed.min(&history.passed) - age;
                pairs.entry(*user).or_default().push(slot);
                if slot < s0 {
                    late.insert(*user);
                }
            }
            let hidden = history.hides;
            let recounted = counted(&pairs, s1 + 1 - N, s1).saturating_sub(hidden);
            let seen = counted(&pairs, s0, s1);
            let left = (history.passed < N)
                .then(|| counted(&pairs, s0 + 1 - N, s1 - N));
            let mut evidence = Evidence {
                cached,
                cached_slot: Slot::new(s0),
                recounted,
                recounted_slot: Slot::new(s1),
                seen: Some(seen),
                left,
                hidden,
            };
            let is_of_late_pairs = |verdict| match verdict {
                Verdict::TooLow(by) => by <= late.len() as u64,
                verdict => verdict.is_explained(),
            };
            prop_assert!(is_of_late_pairs(judge(&evidence)), "{evidence:?}");
            evidence.cached = forged;
            let is_possible = recounted <= forged + seen
                && left.is_none_or(|left| forged <= recounted + left + hidden);
            prop_assert_eq!(judge(&evidence).is_explained(), is_possible);
        }
    }
}
