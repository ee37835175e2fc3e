//! The smallest group of users that answers tell apart.

/// The smallest group of users that answers tell apart: the setting `min_users`. Counts below it are withheld, and so are
/// counts from which a smaller group follows by subtraction.
///
/// It is about one instant: a count that is asked twice shows by how much it changed meanwhile.
///
/// **Windows.** A user who was last seen within 14 days and not within one day is in a group that follows from two counts of
/// one segment. So counts are over a few windows that are known in advance, and one over a shorter window is withheld if it
/// differs by a smaller group from one over a longer window ([`hides_beside`](Self::hides_beside)).
///
/// **Sets of segments.** Segments divide all users into groups: those in all of them, those in all but the last, and so on
/// to those in none. The answer for a set is shown only if each of the groups of its segments has enough users
/// ([`hides_group`](Self::hides_group)). Then no two answers differ by a smaller group, if the users of one are among those
/// of the other for logical reasons: by Craig's interpolation theorem there is a set between them that is made of the segments
/// that both have, so the difference consists of whole groups of either answer.
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

    /// Whether a group of `users` is too small, also if nobody is in it.
    pub fn hides_group(self, users: u64) -> bool {
        users < self.users()
    }

    /// `users`, unless so few are a group that is too small.
    pub fn shown(self, users: u64) -> Option<u64> {
        (!self.hides_group(users)).then_some(users)
    }

    /// Whether a count of `users` is withheld beside a count of the same segment over a longer window.
    pub fn hides_beside(self, users: u64, longer: u64) -> bool {
        let apart = longer.abs_diff(users);
        apart != 0 && self.hides_group(apart)
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
