//! The privacy floor: the smallest group of users that a result may reveal.

/// The privacy floor, which is the setting `min_users`: the smallest group of users that a result may reveal. Counts below
/// it are withheld, and so are counts that would reveal a smaller group by subtraction.
///
/// It holds for one instant: two requests at different times show by how much a count has changed.
///
/// **Windows.** The difference of the counts of one segment over 14 days and over one day is a group, too. Therefore only a
/// few windows, which are known in advance, can be requested, and a count over a shorter window is withheld if it differs
/// from one over a longer window by a smaller group ([`hides_beside`](Self::hides_beside)).
///
/// **Sets of segments.** Segments divide all users into groups: those in all of them, those in all but the last, and so on
/// to those in none. The answer for a set is shown only if each of the groups of its segments has enough users
/// ([`hides_group`](Self::hides_group)). Then two counts never differ by a smaller group if one set is part of the other by
/// their definitions: by Craig's interpolation theorem, a set that uses only segments of both lies between them, so the
/// difference consists of whole groups of either set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Floor(u64);

impl Floor {
    /// A floor of `users`; 0 and 1 hide nothing.
    pub fn of(users: u64) -> Self {
        Self(if users > 1 { users } else { 0 })
    }

    /// Whether anything is withheld.
    pub fn is_on(self) -> bool {
        self.0 > 0
    }

    /// The smallest group; 0 if nothing is withheld.
    pub fn users(self) -> u64 {
        self.0
    }

    /// Whether a group of `users` is too small. An empty group is too small as well.
    pub fn hides_group(self, users: u64) -> bool {
        users < self.users()
    }

    /// `users`, or `None` if such a group is too small.
    pub fn shown(self, users: u64) -> Option<u64> {
        (!self.hides_group(users)).then_some(users)
    }

    /// Whether a count of `users` is withheld beside a count of the same segment over a longer window.
    pub fn hides_beside(self, users: u64, longer: u64) -> bool {
        let apart = longer.abs_diff(users);
        apart != 0 && self.hides_group(apart)
    }

    /// `users`, or `None` if they are withheld, also beside the counts of the same segment over `longer` windows. Where one of these
    /// is unknown, the difference is, too.
    pub fn shown_beside(
        self,
        users: u64,
        longer: impl IntoIterator<Item = Option<u64>>,
    ) -> Option<u64> {
        let is_shown =
            |other: Option<u64>| other.is_some_and(|other| !self.hides_beside(users, other));
        self.shown(users)
            .filter(|_| longer.into_iter().all(is_shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_below_the_floor_are_hidden() {
        for off in [Floor::default(), Floor::of(0), Floor::of(1)] {
            assert!(!off.is_on() && !off.hides_group(0) && !off.hides_beside(1, 2));
            assert_eq!(off.users(), 0);
        }
        let floor = Floor::of(10);
        assert!(floor.is_on() && floor.users() == 10);
        for (users, hidden) in [(0, true), (9, true), (10, false), (u64::MAX, false)] {
            assert_eq!(floor.hides_group(users), hidden);
        }
        for (users, longer, hidden) in [
            (50, 50, false),
            (50, 51, true),
            (50, 59, true),
            (50, 60, false),
            // The counts are of different instants.
            (51, 50, true),
        ] {
            assert_eq!(floor.hides_beside(users, longer), hidden);
        }
    }
}
