//! Checks each result of a client's call against the model.

use std::time::Duration;

use domain::Timestamp;
use engine::counts::{CountResult, Listed, Source};
use engine::ingest::Durability;

use super::calls::{Call, CallResult};
use super::checks::{self, Basis, promise, slot};
use super::clock::Moment;
use super::steps::{RECOUNTED, SEGMENTS, Step, WINDOWS};
use super::truth::Became;
use super::world::World;

/// `cache_ttl` of every instance.
const TRUSTED_FOR: Duration = Duration::from_secs(120);
/// Longer than any case. A tick that reaches the board late is as old as it says.
const LATE: Duration = Duration::from_hours(10_000);

impl World {
    pub fn check(&mut self, call: &Call, answered: CallResult, now: Moment) -> Result<(), String> {
        if answered.is_error() && !matches!(answered, CallResult::Counted(_)) {
            let is_erasure = matches!(answered, CallResult::Erased(_) | CallResult::Merged(_));
            let was_faulty = self.store_was_faulty(call)
                || (is_erasure && self.feed_was_faulty(call.at, call.began));
            promise!(
                was_faulty,
                "{answered:?}, although the store was available all the time"
            );
        }
        match (&call.step, answered) {
            (_, CallResult::Wrote(Ok(Durability::Stored))) => {
                self.truth.settle(call.number, Became::Stored(now));
            }
            (_, CallResult::Wrote(Ok(Durability::Uncounted))) => {
                promise!(
                    self.feed_was_faulty(call.at, call.began),
                    "not counted although the feed was available all the time"
                );
                self.truth.settle(call.number, Became::Uncounted(now));
            }
            (_, CallResult::Wrote(Ok(Durability::Spooled))) => {
                promise!(self.shared.setup.has_spool, "spooled without a spool");
                self.truth.settle(call.number, Became::Spooled);
            }
            (_, CallResult::Wrote(Err(_))) => {
                promise!(
                    !self.shared.setup.has_spool,
                    "refused although there is a spool"
                );
                self.truth.settle(call.number, Became::Refused);
            }
            (
                &Step::Count {
                    segment,
                    window,
                    fresh,
                    ..
                },
                CallResult::Counted(counted),
            ) => {
                let key = (call.at, segment, window);
                match counted {
                    Ok(answer) => self.check_count(call, key, fresh, &answer, now)?,
                    Err(error) => {
                        // A jump of the test's clock expires a reader's timeout together with that of an unresponsive
                        // cache.
                        let is_jump = self.jumped.is_some_and(|at| at >= call.began);
                        promise!(
                            self.store_was_faulty(call) || (is_jump && self.was_held_up(call)),
                            "no count: {error}"
                        );
                        let known = self.known.get(&key);
                        let was_known = known.is_some_and(|(_, at)| *at <= call.begun.moment);
                        let was_published = known.is_some_and(|(at, _)| *at == Timestamp::MIN);
                        let may_be_reset = was_published && self.losses.may_exceed;
                        promise!(
                            !was_known || may_be_reset,
                            "no count although one was known: {error}"
                        );
                    }
                }
            }
            (_, CallResult::Listed(Ok(list))) => self.check_list(call, &list, now)?,
            (&Step::Members { user, .. }, CallResult::Members(Ok(found))) => {
                let until = (self.shared.time.latest(), now);
                let time = &self.shared.time;
                checks::memberships(
                    &self.truth,
                    time,
                    (user, self.live_site().is_some()),
                    &found,
                    WINDOWS[0],
                    call.begun,
                    until,
                )?;
            }
            (&Step::Trend { segment, .. }, CallResult::Trend(Ok(points))) => {
                for point in points {
                    let window = self.window(0);
                    checks::count(
                        &self.truth,
                        &self.shared.time,
                        segment,
                        window,
                        point,
                        Basis {
                            by: None,
                            is_live: false,
                        },
                        now,
                    )?;
                }
            }
            (_, CallResult::Erased(erased)) => self.check_erased(call, erased.ok(), now)?,
            (_, CallResult::Merged(merged)) => self.check_merged(call, merged.ok(), now)?,
            _ => {}
        }
        Ok(())
    }

    /// Whether the store or the cache was unavailable: a count takes a little longer while the cache does not respond,
    /// and the clock of the timers may jump meanwhile.
    fn was_held_up(&self, call: &Call) -> bool {
        let cache = &self.instances[call.at].cache;
        cache.was_faulty(call.began) || self.store_was_faulty(call)
    }

    pub fn store_was_faulty(&self, call: &Call) -> bool {
        // A store that did not respond is not called for a while.
        let since = call.began.checked_sub(Duration::from_secs(10));
        let store = &self.instances[call.at].store;
        store.was_faulty(since.unwrap_or(call.began))
    }

    fn check_count(
        &mut self,
        call: &Call,
        key: (usize, usize, usize),
        fresh: bool,
        answer: &CountResult,
        now: Moment,
    ) -> Result<(), String> {
        let (_, segment, window) = key;
        let clock = self.instances[call.at].clock.last();
        let is_own = self.shared.setup.is_live || (fresh && !answer.stale);
        let by = is_own.then_some(call.begun.moment);
        let window = self.window(window);
        promise!(answer.window == window, "the window differs");
        let time = &self.shared.time;
        let basis = Basis {
            by,
            is_live: self.may_be_live(answer.source),
        };
        checks::count(&self.truth, time, segment, window, answer.count, basis, now)?;
        let was_faulty = self.was_held_up(call);
        let course = (call.begun, clock);
        let is_late = answer.source == Source::Live && self.may_tick_be_late(call.began);
        let trusted_for = if is_late { LATE } else { TRUSTED_FOR };
        checks::provenance(time, answer, course, trusted_for, was_faulty)?;
        let as_of = answer.count.as_of;
        if answer.source == Source::Live {
            // After a loss, another process may publish an earlier instant.
            if key.2 < RECOUNTED {
                // The others are not published, so nobody remembers them.
                self.known.entry(key).or_insert((Timestamp::MIN, now)).1 = now;
            }
            return Ok(());
        }
        let (latest, since) = self.known.get(&key).copied().unwrap_or((as_of, now));
        // A count in the store is as of the clock of the instance that counts, and clocks of instances may differ.
        let is_now = answer.source == Source::Store;
        let ahead = latest.duration_since(clock);
        let was_from_ahead = ahead > TRUSTED_FOR.try_into().unwrap();
        promise!(
            as_of >= latest || since > call.begun.moment || is_now || was_from_ahead,
            "as of {as_of}, although an earlier response was as of {latest}"
        );
        self.known.insert(key, (latest.max(as_of), now));
        Ok(())
    }

    fn check_list(&self, call: &Call, list: &[Listed], now: Moment) -> Result<(), String> {
        promise!(
            list.is_sorted_by(|one, other| one.segment < other.segment),
            "listed twice, or not sorted: {list:?}"
        );
        let clock = self.instances[call.at].clock.last();
        let is_late = self.may_tick_be_late(call.began);
        for listed in list {
            let name = &listed.segment;
            promise!(
                !listed.stale || self.was_held_up(call),
                "{name} is stale, although the store was available all the time"
            );
            let Some(count) = &listed.count else {
                promise!(
                    listed.stale,
                    "{name} without a count, and not marked as stale"
                );
                continue;
            };
            // A count that is ahead may be from a store that has seen a later instant.
            let age = clock.duration_since(count.as_of);
            let waited = clock.duration_since(call.begun.clock).unsigned_abs();
            promise!(
                listed.stale || is_late || age <= (TRUSTED_FOR + waited).try_into().unwrap(),
                "{name} is {age:#} old in the list and not marked as stale"
            );
            let index = SEGMENTS.iter().position(|known| *known == name.as_str());
            let index = index.ok_or_else(|| format!("{name} is unknown"))?;
            promise!(count.users > 0, "{name} is listed without users");
            let basis = Basis {
                by: self.shared.setup.is_live.then_some(call.begun.moment),
                is_live: self.live_site().is_some(),
            };
            let (time, window) = (&self.shared.time, self.window(0));
            checks::count(&self.truth, time, index, window, *count, basis, now)?;
        }
        Ok(())
    }

    fn check_erased(
        &mut self,
        call: &Call,
        erased: Option<u64>,
        now: Moment,
    ) -> Result<(), String> {
        let Some((erasing, there)) = &call.erasing else {
            return Ok(());
        };
        let until = self.shared.time.latest();
        self.truth
            .end_erasing(erasing, erased.is_some(), now, until);
        let first = slot(self.shared.time.latest()) + 1 - WINDOWS[0];
        let least = there.iter().filter(|slot| **slot >= first).count() as u64;
        let are_apart = self.shared.time.are_apart();
        // The erasure that runs first removes the pairs.
        let is_only = match call.step {
            Step::Forget { user, .. } => self.times_erased(user) <= call.erased_before + 1,
            _ => true,
        };
        promise!(
            erased.is_none_or(|erased| erased >= least || are_apart || !is_only),
            "{erased:?} were erased, although the user was in {least} segments"
        );
        Ok(())
    }
}
