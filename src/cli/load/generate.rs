//! Generated pairs, reproducible by seed.

use std::io::Write;
use std::time::Duration;

use fastrand::Rng;

use super::batch::{Batcher, Stopped};

/// What to generate: the value of `--generate`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Generate {
    pub(super) pairs: u64,
    users: u64,
    segments: u64,
    seed: u64,
    spread: Option<Duration>,
}

/// The weight of the k-th segment is k to the minus this. A few segments are large and most are small, as in
/// marketing, but even the smallest of hundreds gets users.
const SKEW: f64 = 0.8;

/// The table of weights must fit in memory, and no service accepts more segments.
const MAX_SEGMENTS: u64 = 10_000_000;

impl Generate {
    /// Parses `pairs=1000000,users=100000,segments=200[,seed=1][,spread=1h]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (mut pairs, mut users, mut segments, mut seed, mut spread) =
            (None, None, None, None, None);
        for part in text.split(',') {
            let (name, value) = part
                .split_once('=')
                .ok_or("give name=value pairs, separated by commas")?;
            let (name, value) = (name.trim(), value.trim());
            let number = || {
                let digits: String = value.chars().filter(|c| *c != '_').collect();
                digits
                    .parse::<u64>()
                    .map_err(|_| format!("{name}: give a whole number"))
            };
            match name {
                "pairs" => pairs = Some(number()?),
                "users" => users = Some(number()?),
                "segments" => segments = Some(number()?),
                "seed" => seed = Some(number()?),
                "spread" => {
                    let time =
                        crate::cli::duration(value).ok_or("spread: give a duration such as 1h")?;
                    spread = Some(time);
                }
                _ => {
                    return Err(format!(
                        "`{name}` is not one of pairs, users, segments, seed, spread"
                    ));
                }
            }
        }
        let positive = |name: &str, given: Option<u64>| match given {
            Some(number) if number > 0 => Ok(number),
            _ => Err(format!("give {name}=N, 1 or more")),
        };
        let made = Self {
            pairs: positive("pairs", pairs)?,
            users: positive("users", users)?,
            segments: positive("segments", segments)?,
            seed: seed.unwrap_or(1),
            spread,
        };
        match made.segments > MAX_SEGMENTS {
            true => Err(format!("segments: at most {MAX_SEGMENTS}")),
            false => Ok(made),
        }
    }

    /// Generates the pairs. With a spread, each `at` is at most that long before `now`, which is in unix seconds.
    pub(super) fn pass(&self, now: i64, batcher: &mut Batcher) -> Result<(), Stopped> {
        let mut rng = Rng::with_seed(self.seed);
        let weights = self.weights();
        let total = weights.last().copied().unwrap_or(1.0);
        let mut json = Vec::new();
        for number in 1..=self.pairs {
            let user = rng.u64(..self.users);
            let pick = rng.f64() * total;
            let segment = weights
                .partition_point(|upto| *upto <= pick)
                .min(weights.len() - 1);
            json.clear();
            // Writing to memory can't fail.
            let _ = write!(
                json,
                r#"{{"user_id":"u{user}","segment":"segment-{segment:03}""#
            );
            if let Some(spread) = self.spread {
                let back = rng.u64(..=spread.as_secs());
                let at = now.saturating_sub_unsigned(back);
                let _ = write!(json, r#","at":{at}"#);
            }
            json.push(b'}');
            batcher.add(number, &json, number)?;
        }
        batcher.flush(self.pairs)
    }

    /// The cumulative weights of the segments.
    fn weights(&self) -> Vec<f64> {
        let mut sum = 0.0;
        (1..=self.segments)
            .map(|rank| {
                sum += (rank as f64).powf(-SKEW);
                sum
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read_or_refused_in_words() {
        let made = Generate::parse("pairs=10, users=2,segments=3,seed=9,spread=1h").unwrap();
        assert_eq!(
            (made.pairs, made.users, made.segments, made.seed),
            (10, 2, 3, 9)
        );
        assert_eq!(made.spread, Some(Duration::from_hours(1)));
        let cases = [
            ("", "name=value"),
            ("pairs", "name=value"),
            ("pairs=10", "users=N"),
            ("pairs=0,users=1,segments=1", "pairs=N, 1 or more"),
            ("pairs=x", "whole number"),
            ("pears=1", "not one of pairs"),
            ("pairs=1,users=1,segments=99999999", "at most"),
            ("pairs=1,users=1,segments=1,spread=1", "such as 1h"),
        ];
        for (text, part) in cases {
            let error = Generate::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
