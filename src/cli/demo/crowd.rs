//! Made-up users: they come, come again, stay away, and others come.

use crate::domain::{Count, Segment, TimeFrame, Timestamp, TrendPoint};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// How often the made-up past was counted: more often where people look closer.
const FINE_STEP: i64 = 600;
const FINE_PAST: i64 = 2 * DAY;
/// New visits in one lot.
const LOT: std::ops::Range<usize> = 1..5;

/// What a segment is like.
struct Habit {
    name: &'static str,
    /// Users that came in four weeks.
    users: u32,
    /// Days until somebody comes again.
    again: f64,
    /// How probable it is that they do.
    loyalty: f64,
    /// How newcomers spread over the four weeks: above 1 more come lately, below 1 fewer.
    growth: f64,
}

#[rustfmt::skip]
const HABITS: [Habit; 12] = [
    Habit { name: "front page", users: 38_000, again: 4.0, loyalty: 0.6, growth: 1.1 },
    Habit { name: "sports", users: 21_000, again: 3.0, loyalty: 0.7, growth: 1.3 },
    Habit { name: "news", users: 17_500, again: 2.0, loyalty: 0.7, growth: 1.0 },
    Habit { name: "music", users: 9_800, again: 5.0, loyalty: 0.5, growth: 0.9 },
    Habit { name: "travel", users: 6_400, again: 6.0, loyalty: 0.4, growth: 0.7 },
    Habit { name: "Black Friday", users: 5_200, again: 1.0, loyalty: 0.5, growth: 4.0 },
    Habit { name: "newsletter readers", users: 4_100, again: 7.0, loyalty: 0.9, growth: 1.0 },
    Habit { name: "premium trial", users: 2_300, again: 2.0, loyalty: 0.6, growth: 1.6 },
    Habit { name: "cart left behind", users: 1_450, again: 3.0, loyalty: 0.3, growth: 1.2 },
    Habit { name: "summer sale", users: 1_900, again: 2.0, loyalty: 0.3, growth: 0.3 },
    Habit { name: "night owls", users: 620, again: 1.5, loyalty: 0.8, growth: 1.0 },
    Habit { name: "VIP", users: 140, again: 2.0, loyalty: 0.9, growth: 1.1 },
];

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
    /// By segment and user, when they came: unix seconds, ascending.
    past: Vec<Vec<Vec<i64>>>,
    /// Users that a segment has seen so far.
    known: Vec<u32>,
}

impl Crowd {
    /// A crowd with four weeks behind it as of `now`.
    pub(super) fn new(now: Timestamp, frame: TimeFrame, rng: fastrand::Rng) -> Self {
        let mut crowd = Self {
            now: now.as_second(),
            frame,
            rng,
            past: Vec::new(),
            known: HABITS.iter().map(|habit| habit.users).collect(),
        };
        for habit in &HABITS {
            let users = (0..habit.users).map(|_| crowd.life(habit)).collect();
            crowd.past.push(users);
        }
        crowd
    }

    /// When one user came.
    fn life(&mut self, habit: &Habit) -> Vec<i64> {
        let begin = self.now - 28 * DAY;
        let share = self.rng.f64().powf(1.0 / habit.growth);
        let mut at = begin + (share * 28.0 * DAY as f64) as i64;
        let mut visits = Vec::new();
        loop {
            while self.sleeps(at) {
                at += self.rng.i64(HOUR..4 * HOUR);
            }
            if at > self.now {
                return visits;
            }
            visits.push(at);
            if self.rng.f64() > habit.loyalty {
                return visits;
            }
            // Times between visits that know nothing of each other are distributed so.
            let gap = -self.rng.f64().max(1e-9).ln() * habit.again;
            at += (gap * DAY as f64) as i64 + 60;
        }
    }

    /// Most stay away at night.
    fn sleeps(&mut self, at: i64) -> bool {
        let hour = at.rem_euclid(DAY) / HOUR;
        hour < 6 && self.rng.u8(..10) < 8
    }

    /// What they did within the window.
    pub(super) fn visits(&self) -> Vec<Visit> {
        let begin = self.now - self.window();
        let mut visits = Vec::new();
        for (users, habit) in self.past.iter().zip(&HABITS) {
            for (user, seen) in (0..).zip(users) {
                let within = seen.iter().filter(|at| **at > begin);
                visits.extend(within.filter_map(|at| {
                    Some(Visit {
                        user,
                        segment: habit.name,
                        at: Timestamp::from_second(*at).ok()?,
                    })
                }));
            }
        }
        visits
    }

    /// What was counted in the last two weeks.
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

    /// Gives the memory of the past back once it is recorded.
    pub(super) fn forget_past(&mut self) {
        self.past = Vec::new();
    }

    /// A few visits as of `now`: of newcomers, and of some who were here before.
    pub(super) fn come(&mut self, now: Timestamp) -> Vec<Visit> {
        let total: u32 = HABITS.iter().map(|habit| habit.users).sum();
        let some = self.rng.usize(LOT);
        let mut visits = Vec::with_capacity(some);
        for _ in 0..some {
            let mut chosen = self.rng.u32(..total);
            let index = HABITS.iter().position(|habit| match chosen < habit.users {
                true => true,
                false => {
                    chosen -= habit.users;
                    false
                }
            });
            let index = index.unwrap_or(0);
            let user = match self.rng.u8(..10) {
                0..4 => {
                    self.known[index] += 1;
                    self.known[index] - 1
                }
                _ => self.rng.u32(..self.known[index]),
            };
            visits.push(Visit {
                user,
                segment: HABITS[index].name,
                at: now,
            });
        }
        visits
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
                .filter(|visit| visit.segment == habit.name)
                .map(|visit| visit.user)
                .collect();
            let last = trend
                .iter()
                .rfind(|point| point.segment.as_str() == habit.name)
                .unwrap();
            // The last count was made ten minutes ago.
            let apart = users.len().abs_diff(last.count.users as usize);
            assert!(apart <= 5 + users.len() / 50, "{}: {apart}", habit.name);
            assert!(users.len() > 50, "{}", habit.name);
        }
        crowd.forget_past();
        let come = crowd.come(now);
        assert!(!come.is_empty() && come.iter().all(|visit| visit.at == now));
    }
}
