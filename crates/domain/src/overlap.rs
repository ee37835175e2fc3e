//! Results of questions about overlaps: how many users two segments have in common, and which pairs have most.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use super::{Floor, Reach, Segment};

/// The maximum number of segments whose overlaps are counted at once. Their 2 million pairs have 16 MB of counters, about as
/// much as the cache of a CPU.
pub const MAX_SEGMENTS: usize = 2_000;
/// The maximum number of segments of one request for a matrix. People can't read a larger one.
pub const MAX_NAMED: usize = 100;
/// The maximum number of pairs of one request for the pairs that rank highest.
pub const MAX_PAIRS: usize = 1_000;

/// The users in common of every pair of some segments, exact as of an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The counts.
    pub matrix: OverlapMatrix,
    /// The instant for which they are exact.
    pub as_of: Timestamp,
}

/// The number of users in both segments of every pair, and of each segment. It takes 8 bytes for each pair: 16 MB for 2,000
/// segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlapMatrix {
    segments: Vec<Segment>,
    everybody: u64,
    /// Row by row, each up to the diagonal.
    cells: Vec<u64>,
}

/// The users in common of two segments, and the users of each, within one window as of one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairOverlap {
    /// One segment, the first by name if the pair comes from a list of pairs.
    pub a: Segment,
    /// The other segment.
    pub b: Segment,
    /// The number of users in both.
    pub both: u64,
    /// The number of users of `a`.
    pub users_a: u64,
    /// The number of users of `b`.
    pub users_b: u64,
}

/// Which of the pairs of all segments to return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopQuestion {
    /// Their order.
    pub order: OverlapOrder,
    /// The maximum number of pairs.
    pub limit: usize,
    /// The least number of users in both. It is for lift and Jaccard: two segments of one user, the same one, have the greatest
    /// Jaccard index there is and the greatest lift. How many users make a pair worth showing depends on the number of users that
    /// a site has, which only the caller knows; 1 shows every pair.
    pub at_least: u64,
    /// Pairs that would reveal a smaller group are left out.
    pub floor: Floor,
    /// Pairs with a segment that is not in it are left out.
    pub reach: Reach,
}

/// The pairs that rank highest, exact as of an instant.
#[derive(Debug, Clone, PartialEq)]
pub struct TopOverlaps {
    /// The pairs, best first.
    pub pairs: Vec<PairOverlap>,
    /// The number of distinct users of any segment.
    pub everybody: u64,
    /// The instant for which they are exact.
    pub as_of: Timestamp,
}

/// The value by which pairs are ranked, greatest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OverlapOrder {
    /// The number of users in both.
    #[default]
    Both,
    /// [`PairOverlap::jaccard`].
    Jaccard,
    /// [`PairOverlap::lift`].
    Lift,
}

/// The string is not an [`OverlapOrder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pairs can be ordered by both, jaccard or lift")]
pub struct InvalidOverlapOrder;

impl OverlapMatrix {
    /// Creates the matrix of `segments`. `both` returns the number of users in the segments at two positions, the first of
    /// them at or after the second; `everybody` is the number of distinct users of any segment, these and others.
    pub fn new(
        segments: Vec<Segment>,
        everybody: u64,
        mut both: impl FnMut(usize, usize) -> u64,
    ) -> Self {
        let mut cells = Vec::with_capacity(segments.len() * (segments.len() + 1) / 2);
        for row in 0..segments.len() {
            cells.extend((0..=row).map(|column| both(row, column)));
        }
        Self {
            segments,
            everybody,
            cells,
        }
    }

    /// The segments, in the order of rows and columns.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The number of distinct users of any segment, including those without a row here.
    pub fn everybody(&self) -> u64 {
        self.everybody
    }

    /// The number of users in both of the segments at two positions; the segment's own users if they are the same. 0 beyond
    /// the last segment.
    pub fn both(&self, some: usize, other: usize) -> u64 {
        let (column, row) = (some.min(other), some.max(other));
        if row >= self.segments.len() {
            return 0;
        }
        let cell = self.cells.get(row * (row + 1) / 2 + column);
        cell.copied().unwrap_or(0)
    }

    /// All rows of the full, symmetric matrix.
    pub fn rows(&self) -> Vec<Vec<u64>> {
        let all = 0..self.segments.len();
        let row = |row| all.clone().map(|column| self.both(row, column)).collect();
        all.clone().map(row).collect()
    }

    /// Every pair of two segments that have a user in common.
    pub fn pairs(&self) -> impl Iterator<Item = PairOverlap> {
        let all = self.segments.iter().enumerate();
        let pairs = all.flat_map(|(row, b)| {
            let before = self.segments.iter().enumerate().take(row);
            before.map(move |(column, a)| (row, column, a, b))
        });
        pairs.filter_map(|(row, column, a, b)| {
            let both = self.both(row, column);
            let (users_a, users_b) = (self.both(column, column), self.both(row, row));
            (both > 0).then(|| PairOverlap::new((a, users_a), (b, users_b), both))
        })
    }
}

impl PairOverlap {
    /// The overlap of two segments, each with its number of users. `a` is the first by name.
    pub fn new(one: (&Segment, u64), other: (&Segment, u64), both: u64) -> Self {
        let (one, other) = if one.0 <= other.0 {
            (one, other)
        } else {
            (other, one)
        };
        Self {
            a: one.0.clone(),
            b: other.0.clone(),
            both,
            users_a: one.1,
            users_b: other.1,
        }
    }

    /// The Jaccard index: the users in both segments, divided by the users in at least one. From 0 to 1, and 0 if neither
    /// segment has users.
    pub fn jaccard(&self) -> f64 {
        jaccard(self.both, self.users_a, self.users_b).unwrap_or(0.0)
    }

    /// Whether `floor` allows the pair: two segments divide all users into those in both, only in the one, only in the
    /// other, and in neither.
    pub fn is_above(&self, floor: Floor, everybody: u64) -> bool {
        let (only_a, only_b) = (
            self.users_a.saturating_sub(self.both),
            self.users_b.saturating_sub(self.both),
        );
        let others = everybody
            .saturating_sub(self.users_a)
            .saturating_sub(only_b);
        let groups = [self.both, only_a, only_b, others];
        !groups.into_iter().any(|users| floor.hides_group(users))
    }

    /// The lift: how many times more users are in both than if the segments were independent. It is 1 if a user of `a` is as
    /// likely to be in `b` as any user. `everybody` is the number of distinct users of any segment. `None` if a segment has
    /// no users.
    pub fn lift(&self, everybody: u64) -> Option<f64> {
        lift(self.both, self.users_a, self.users_b, everybody)
    }
}

/// [`PairOverlap::jaccard`] of numbers of users; `None` if neither segment has users.
pub fn jaccard(both: u64, users_a: u64, users_b: u64) -> Option<f64> {
    // Not subtracted from the sum: that may exceed 64 bits.
    let either = users_b as f64 + users_a.saturating_sub(both) as f64;
    (either > 0.0).then(|| both as f64 / either)
}

/// [`PairOverlap::lift`] of numbers of users.
pub fn lift(both: u64, users_a: u64, users_b: u64, everybody: u64) -> Option<f64> {
    let independent = users_a as f64 * users_b as f64;
    (independent > 0.0).then(|| both as f64 * everybody as f64 / independent)
}

impl OverlapOrder {
    /// All orders.
    pub const ALL: [Self; 3] = [Self::Both, Self::Jaccard, Self::Lift];

    /// The order's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Jaccard => "jaccard",
            Self::Lift => "lift",
        }
    }

    /// What pairs are compared by. Lift has `everybody` as a factor in all pairs, so that it does not change their order.
    fn rank(self, pair: &PairOverlap) -> f64 {
        match self {
            Self::Both => pair.both as f64,
            Self::Jaccard => pair.jaccard(),
            Self::Lift => pair.lift(1).unwrap_or(0.0),
        }
    }
}

impl fmt::Display for OverlapOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OverlapOrder {
    type Err = InvalidOverlapOrder;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|order| order.as_str() == text);
        named.ok_or(InvalidOverlapOrder)
    }
}

impl TopQuestion {
    /// The answer, given all pairs: those that rank highest, best first. Pairs of the same rank are in the order of their names, so
    /// that the same counts always give the same list.
    pub fn answer(
        &self,
        pairs: impl IntoIterator<Item = PairOverlap>,
        everybody: u64,
    ) -> Vec<PairOverlap> {
        let mut best: Vec<(f64, PairOverlap)> = Vec::new();
        let better = |one: &(f64, PairOverlap), other: &(f64, PairOverlap)| {
            let by_rank = other.0.total_cmp(&one.0);
            by_rank.then_with(|| (&one.1.a, &one.1.b).cmp(&(&other.1.a, &other.1.b)))
        };
        for pair in pairs {
            if !self.asks_for(&pair, everybody) {
                continue;
            }
            best.push((self.order.rank(&pair), pair));
            // Memory for two lists, and each pair is compared a few times only.
            if best.len() > self.limit.saturating_mul(2).max(KEPT_AT_LEAST) {
                best.select_nth_unstable_by(self.limit, better);
                best.truncate(self.limit);
            }
        }
        best.sort_unstable_by(better);
        best.truncate(self.limit);
        best.into_iter().map(|(_, pair)| pair).collect()
    }

    fn asks_for(&self, pair: &PairOverlap, everybody: u64) -> bool {
        let is_within = |segment: &Segment| self.reach.covers(segment.as_str());
        pair.both >= self.at_least
            && is_within(&pair.a)
            && is_within(&pair.b)
            && pair.is_above(self.floor, everybody)
    }
}

/// A short list is cut this seldom, because a cut looks at all of it.
const KEPT_AT_LEAST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: &str) -> Segment {
        Segment::new(name).unwrap()
    }

    fn question(order: OverlapOrder, limit: usize, at_least: u64) -> TopQuestion {
        TopQuestion {
            order,
            limit,
            at_least,
            floor: Floor::default(),
            reach: Reach::default(),
        }
    }

    fn pair(a: &str, b: &str, users: [u64; 2], both: u64) -> PairOverlap {
        PairOverlap::new((&segment(a), users[0]), (&segment(b), users[1]), both)
    }

    #[test]
    fn measures_a_pair() {
        let some = pair("a", "b", [30, 20], 10);
        assert_eq!(some.jaccard(), 0.25);
        // Of everybody, 30 % are in a, but half of b.
        assert_eq!(some.lift(100), Some(10.0 * 100.0 / 600.0));
        let same = pair("a", "b", [7, 7], 7);
        assert_eq!((same.jaccard(), same.lift(7)), (1.0, Some(1.0)));
        let apart = pair("a", "b", [7, 7], 0);
        assert_eq!((apart.jaccard(), apart.lift(14)), (0.0, Some(0.0)));
        let one_is_empty = pair("a", "b", [7, 0], 0);
        assert_eq!((one_is_empty.jaccard(), one_is_empty.lift(7)), (0.0, None));
        let empty = pair("a", "b", [0, 0], 0);
        assert_eq!((empty.jaccard(), empty.lift(0)), (0.0, None));
        let huge = pair("a", "b", [u64::MAX; 2], u64::MAX);
        assert_eq!((huge.jaccard(), huge.lift(u64::MAX)), (1.0, Some(1.0)));
    }

    #[test]
    fn a_matrix_is_symmetric() {
        let segments = ["b", "a", "c"].map(segment).to_vec();
        let matrix = OverlapMatrix::new(segments, 9, |row, column| {
            assert!(column <= row);
            [[5, 0, 0], [3, 4, 0], [0, 1, 2]][row][column]
        });
        assert_eq!(matrix.rows(), [vec![5, 3, 0], vec![3, 4, 1], vec![0, 1, 2]]);
        assert_eq!((matrix.both(0, 3), matrix.both(7, 1)), (0, 0));
        let pairs: Vec<PairOverlap> = matrix.pairs().collect();
        assert_eq!(
            pairs,
            [pair("a", "b", [4, 5], 3), pair("a", "c", [4, 2], 1)]
        );
        let none = OverlapMatrix::new(Vec::new(), 0, |_, _| 0);
        assert_eq!((none.rows().len(), none.pairs().count()), (0, 0));
    }

    #[test]
    fn orders_have_names() {
        for order in OverlapOrder::ALL {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        for bad in ["", "Both", "users", " lift"] {
            assert_eq!(bad.parse::<OverlapOrder>(), Err(InvalidOverlapOrder));
        }
    }

    #[test]
    fn ranks_and_breaks_ties_by_name() {
        let pairs = [
            pair("b", "d", [100, 100], 50),
            pair("a", "z", [1000, 1000], 90),
            pair("c", "a", [200, 100], 50),
            pair("x", "y", [1, 1], 1),
            pair("p", "q", [10, 10], 0),
        ];
        let names = |order, limit, at_least| {
            let found = question(order, limit, at_least).answer(pairs.clone(), 1_000);
            let names = found.iter().map(|pair| format!("{}{}", pair.a, pair.b));
            names.collect::<Vec<String>>().join(" ")
        };
        assert_eq!(names(OverlapOrder::Both, 9, 0), "az ac bd xy pq");
        assert_eq!(names(OverlapOrder::Both, 2, 1), "az ac");
        assert_eq!(names(OverlapOrder::Jaccard, 2, 1), "xy bd");
        assert_eq!(names(OverlapOrder::Lift, 9, 1), "xy bd ac az");
        assert_eq!(names(OverlapOrder::Lift, 9, 50), "bd ac az");
        assert_eq!(names(OverlapOrder::Lift, 0, 1), "");
        assert_eq!(names(OverlapOrder::Both, usize::MAX, 50), "az ac bd");
    }

    #[test]
    fn pairs_beyond_the_reach_take_no_place() {
        let pairs = [
            pair("a", "b", [90, 90], 90),
            pair("a", "own 1", [90, 80], 70),
            pair("own 1", "own 2", [80, 60], 3),
            pair("own 2", "own 3", [60, 60], 2),
        ];
        let question = TopQuestion {
            reach: Reach::of(["own*"]).unwrap(),
            ..question(OverlapOrder::Both, 1, 1)
        };
        assert_eq!(question.answer(pairs.clone(), 100), pairs[2..3]);
    }

    #[test]
    fn the_top_of_many_is_that_of_a_sorted_list() {
        let names: Vec<Segment> = (0..150).map(|n| segment(&format!("s{n:03}"))).collect();
        let mut mixed = 1_u64;
        let mut number = |most: u64| {
            mixed = mixed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (mixed >> 33) % most
        };
        let users: Vec<u64> = names.iter().map(|_| 40 + number(60)).collect();
        let matrix = OverlapMatrix::new(names, 1_000, |row, column| match row == column {
            true => users[row],
            false => number(40),
        });
        for order in OverlapOrder::ALL {
            let mut expected: Vec<PairOverlap> = matrix.pairs().collect();
            assert!(expected.len() > 8 * KEPT_AT_LEAST);
            expected.sort_by(|one, other| {
                let by_rank = order.rank(other).total_cmp(&order.rank(one));
                by_rank.then_with(|| (&one.a, &one.b).cmp(&(&other.a, &other.b)))
            });
            for limit in [1, 100, 2_000] {
                let found = question(order, limit, 1).answer(matrix.pairs(), 1_000);
                assert_eq!(found, expected[..limit]);
            }
        }
    }
}
