//! Simulated users, who visit segments, return or stay away.
//!
//! One model generates the past and the live visits: a user visits a segment, and after each visit returns or stays away.
//! New users arrive at the rate at which the past ended, so trends continue without a break.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use domain::{Count, Segment, TimeFrame, Timestamp, TrendPoint};
use engine::segments::SegmentSettings;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// Seconds between the counts of the generated trend in the last `FINE_PAST` seconds, where people look closer. Before
/// that, the counts are an hour apart.
const FINE_STEP: i64 = 600;
const FINE_PAST: i64 = 2 * DAY;
/// The length of the generated past in days.
const PAST_DAYS: i64 = 28;
/// The ages of past visits that are recorded in steps of some seconds, and these seconds: shorter ones where people look closer.
const STEPS: [(i64, i64); 3] = [(2 * HOUR, 60), (FINE_PAST, 300), (i64::MAX, HOUR)];

/// The parameters of a segment.
struct Habit {
    name: &'static str,
    group: &'static str,
    description: &'static str,
    /// The number of users in four weeks.
    users: u32,
    /// The mean number of days until a user returns.
    again: f64,
    /// The probability that a user returns.
    loyalty: f64,
    /// The distribution of new users over the four weeks: above 1 their rate rises, below 1 it falls.
    growth: f64,
}

#[rustfmt::skip]
const HABITS: [Habit; 12] = [
    Habit { name: "front page", group: "content", description: "Opened the front page", users: 190_000, again: 4.0, loyalty: 0.6, growth: 1.1 },
    Habit { name: "sports", group: "content", description: "Read an article about sports", users: 105_000, again: 3.0, loyalty: 0.7, growth: 1.3 },
    Habit { name: "news", group: "content", description: "Read the news", users: 87_500, again: 2.0, loyalty: 0.7, growth: 1.0 },
    Habit { name: "music", group: "content", description: "Listened to a song", users: 49_000, again: 5.0, loyalty: 0.5, growth: 0.9 },
    Habit { name: "travel", group: "content", description: "Read about a place to go to", users: 32_000, again: 6.0, loyalty: 0.4, growth: 0.7 },
    Habit { name: "Black Friday", group: "campaigns", description: "Looked at an offer of Black Friday", users: 26_000, again: 1.0, loyalty: 0.5, growth: 4.0 },
    Habit { name: "newsletter readers", group: "campaigns", description: "Opened a newsletter", users: 20_500, again: 7.0, loyalty: 0.9, growth: 1.0 },
    Habit { name: "premium trial", group: "customers", description: "Tries the premium plan", users: 11_500, again: 2.0, loyalty: 0.6, growth: 1.6 },
    Habit { name: "cart left behind", group: "customers", description: "Left something in the cart", users: 7_250, again: 3.0, loyalty: 0.3, growth: 1.2 },
    Habit { name: "summer sale", group: "campaigns", description: "Looked at an offer of the summer sale", users: 9_500, again: 2.0, loyalty: 0.3, growth: 0.3 },
    Habit { name: "night owls", group: "customers", description: "Seen after midnight", users: 3_100, again: 1.5, loyalty: 0.8, growth: 1.0 },
    Habit { name: "VIP", group: "customers", description: "Pays for the premium plan", users: 700, again: 2.0, loyalty: 0.9, growth: 1.1 },
];

/// The segments with their settings.
pub(super) fn settings(frame: &TimeFrame) -> impl Iterator<Item = (Segment, SegmentSettings)> {
    HABITS.iter().filter_map(|habit| {
        let [description, group] =
            [habit.description, habit.group].map(|text| Some(text.to_owned()));
        let settings = SegmentSettings::new(frame, None, description, group).ok()?;
        Some((Segment::new(habit.name).ok()?, settings))
    })
}

/// One user seen in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visit {
    user: u32,
    pub(super) segment: &'static str,
    pub(super) at: Timestamp,
}

impl Visit {
    pub(super) fn user_id(&self) -> String {
        format!("visitor-{}", self.user)
    }
}

/// The users of all segments.
pub(super) struct Crowd {
    now: i64,
    frame: TimeFrame,
    rng: fastrand::Rng,
    /// The times of past visits by segment and user: unix seconds, ascending.
    past: Vec<Vec<Vec<i64>>>,
    /// The number of users of each segment so far.
    known: Vec<u32>,
    /// The next visit of each user who returns, and of the next new user of each segment; the earliest first.
    next: BinaryHeap<Reverse<Next>>,
}

/// A future visit: unix seconds, the index of the segment, the user.
type Next = (i64, usize, Who);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Known(u32),
    Newcomer,
}

impl Crowd {
    /// The beginning of the past of a crowd as of `now`.
    pub(super) fn begin(now: Timestamp) -> Timestamp {
        Timestamp::from_second(now.as_second() - PAST_DAYS * DAY).unwrap_or(now)
    }

    /// Creates a crowd with four weeks of past visits as of `now`.
    pub(super) fn new(now: Timestamp, frame: TimeFrame, rng: fastrand::Rng) -> Self {
        let mut crowd = Self {
            now: now.as_second(),
            frame,
            rng,
            past: Vec::new(),
            known: HABITS.iter().map(|habit| habit.users).collect(),
            next: BinaryHeap::new(),
        };
        for (segment, habit) in HABITS.iter().enumerate() {
            let users = (0..habit.users)
                .map(|user| crowd.life(segment, user))
                .collect();
            crowd.past.push(users);
            crowd.expect_newcomer(segment, now.as_second());
        }
        crowd
    }

    /// The past visits of one user. Schedules the next visit, if there is one.
    fn life(&mut self, segment: usize, user: u32) -> Vec<i64> {
        let habit = &HABITS[segment];
        let length = PAST_DAYS * DAY;
        let share = self.rng.f64().powf(1.0 / habit.growth);
        let first = self.now - length + (share * length as f64) as i64;
        let mut at = self.awake(first);
        let mut visits = Vec::new();
        while at <= self.now {
            visits.push(at);
            match self.again(segment, at) {
                Some(next) => at = next,
                None => return visits,
            }
        }
        self.next.push(Reverse((at, segment, Who::Known(user))));
        visits
    }

    /// The time of the next visit after one at `at`, if the user returns.
    fn again(&mut self, segment: usize, at: i64) -> Option<i64> {
        let habit = &HABITS[segment];
        if self.rng.f64() > habit.loyalty {
            return None;
        }
        let gap = self.gap(habit.again) + 60;
        Some(self.awake(at + gap))
    }

    /// Schedules the next new user of a segment after `at`. The rate is that of new users at the end of the past, which is
    /// the slope of the distribution of `share` in `life` at its end.
    fn expect_newcomer(&mut self, segment: usize, at: i64) {
        let habit = &HABITS[segment];
        let days = PAST_DAYS as f64 / (f64::from(habit.users) * habit.growth);
        let gap = self.gap(days);
        self.next.push(Reverse((at + gap, segment, Who::Newcomer)));
    }

    /// Seconds between independent events that are `days` apart on average: an exponential distribution.
    fn gap(&mut self, days: f64) -> i64 {
        (-self.rng.f64().max(1e-9).ln() * days * DAY as f64) as i64
    }

    /// `at`, or a later time at which the user is awake.
    fn awake(&mut self, mut at: i64) -> i64 {
        while self.sleeps(at) {
            at += self.rng.i64(HOUR..4 * HOUR);
        }
        at
    }

    /// Half of the users are asleep between 0:00 and 6:00 UTC.
    fn sleeps(&mut self, at: i64) -> bool {
        let hour = at.rem_euclid(DAY) / HOUR;
        hour < 6 && self.rng.u8(..10) < 5
    }

    /// The past visits in order of time.
    pub(super) fn visits(&self) -> Vec<Visit> {
        let mut visits = Vec::new();
        for (users, habit) in self.past.iter().zip(&HABITS) {
            for (user, seen) in (0..).zip(users) {
                visits.extend(seen.iter().filter_map(|at| {
                    Some(Visit {
                        user,
                        segment: habit.name,
                        at: Timestamp::from_second(*at).ok()?,
                    })
                }));
            }
        }
        visits.sort_unstable_by_key(|visit| visit.at);
        visits
    }

    /// The step in which past visits at `at` are recorded.
    pub(super) fn step_of(&self, at: Timestamp) -> i64 {
        let at = at.as_second();
        let step = STEPS.iter().find(|(age, _)| self.now - at <= *age);
        at.div_euclid(step.map_or(HOUR, |(_, seconds)| *seconds))
    }

    /// The counts of the last two weeks.
    pub(super) fn trend(&self) -> Vec<TrendPoint> {
        let mut points = Vec::new();
        for (users, habit) in self.past.iter().zip(&HABITS) {
            let Ok(segment) = Segment::new(habit.name) else {
                continue;
            };
            let counted = self.counts(users).into_iter();
            points.extend(counted.map(|count| TrendPoint {
                segment: segment.clone(),
                window: self.frame.full_window(),
                count,
            }));
        }
        points
    }

    /// The counts of one segment: a user is in it from each visit until the window after it.
    fn counts(&self, users: &[Vec<i64>]) -> Vec<Count> {
        let window = self.window();
        let mut changes = Vec::new();
        for seen in users {
            for (index, at) in seen.iter().enumerate() {
                let since = index.checked_sub(1).and_then(|before| seen.get(before));
                if since.is_none_or(|before| before + window < *at) {
                    changes.push((*at, 1));
                }
                let next = seen.get(index + 1);
                if next.is_none_or(|next| *next > at + window) {
                    changes.push((at + window, -1));
                }
            }
        }
        changes.sort_unstable();
        let mut changes = changes.into_iter().peekable();
        let (mut counts, mut inside) = (Vec::new(), 0_i64);
        let mut at = self.now - 14 * DAY;
        while at < self.now {
            while let Some((_, change)) = changes.next_if(|change| change.0 <= at) {
                inside += change;
            }
            if let Ok(as_of) = Timestamp::from_second(at) {
                let users = inside.unsigned_abs();
                counts.push(Count { users, as_of });
            }
            let fine = at >= self.now - FINE_PAST;
            at += if fine { FINE_STEP } else { HOUR };
        }
        counts
    }

    /// Frees the memory of the past visits. Call it once they are recorded.
    pub(super) fn forget_past(&mut self) {
        self.past = Vec::new();
    }

    /// The scheduled visits up to `now`.
    pub(super) fn come(&mut self, now: Timestamp) -> Vec<Visit> {
        let mut visits = Vec::new();
        while let Some(Reverse((at, segment, who))) = self.due(now.as_second()) {
            let user = match who {
                Who::Known(user) => user,
                Who::Newcomer => {
                    self.expect_newcomer(segment, at);
                    let awake = self.awake(at);
                    let user = self.known[segment];
                    self.known[segment] += 1;
                    if awake > at {
                        self.next.push(Reverse((awake, segment, Who::Known(user))));
                        continue;
                    }
                    user
                }
            };
            if let Some(next) = self.again(segment, at) {
                self.next.push(Reverse((next, segment, Who::Known(user))));
            }
            let Ok(at) = Timestamp::from_second(at) else {
                continue;
            };
            let segment = HABITS[segment].name;
            visits.push(Visit { user, segment, at });
        }
        visits
    }

    fn due(&mut self, now: i64) -> Option<Reverse<Next>> {
        match self.next.peek() {
            Some(Reverse((at, ..))) if *at <= now => self.next.pop(),
            _ => None,
        }
    }

    fn window(&self) -> i64 {
        i64::try_from(self.frame.full_window().seconds()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_was_counted_is_what_was_visited() {
        let now = Timestamp::from_second(1_795_262_400).unwrap();
        let [minute, weeks] = [60, 14 * 86_400].map(Duration::from_secs);
        let frame = TimeFrame::new(weeks, minute, minute).unwrap();
        let mut crowd = Crowd::new(now, frame, fastrand::Rng::with_seed(1));
        let (visits, trend) = (crowd.visits(), crowd.trend());
        for habit in &HABITS {
            let users: std::collections::HashSet<u32> = visits
                .iter()
                .filter(|visit| visit.segment == habit.name && visit.at > now - weeks)
                .map(|visit| visit.user)
                .collect();
            let last = trend
                .iter()
                .rfind(|point| point.segment.as_str() == habit.name)
                .unwrap();
            // The last count is ten minutes old.
            let apart = users.len().abs_diff(last.count.users as usize);
            assert!(apart <= 5 + users.len() / 50, "{}: {apart}", habit.name);
            assert!(users.len() > 50, "{}", habit.name);
        }
        crowd.forget_past();
    }

    #[test]
    fn what_follows_comes_as_often_as_what_was() {
        let now = Timestamp::from_second(1_795_262_400).unwrap();
        let day = Duration::from_secs(86_400);
        let minute = Duration::from_secs(60);
        let frame = TimeFrame::new(14 * day, minute, minute).unwrap();
        let mut crowd = Crowd::new(now, frame, fastrand::Rng::with_seed(1));
        let of_the_last_day = |visits: Vec<Visit>, end: Timestamp| {
            let within = visits
                .iter()
                .filter(|visit| visit.at > end - day && visit.at <= end);
            within.count()
        };
        let yesterday = of_the_last_day(crowd.visits(), now);
        crowd.forget_past();
        let mut before = yesterday;
        for days in 1..=3 {
            let end = now + days * day;
            let visits = crowd.come(end);
            assert!(visits.iter().all(|visit| visit.at <= end));
            let today = of_the_last_day(visits, end);
            // No abrupt change: less than a fifth from one day to the next.
            assert!(
                today.abs_diff(before) * 5 < before,
                "{before}, then {today}"
            );
            before = today;
        }
        assert!(crowd.come(now).is_empty(), "nobody comes twice");
    }
}
