//! Sets of users.

use std::fmt;

/// Users by number.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Users(u8);

impl Users {
    pub fn one(user: usize) -> Self {
        Self(1 << user)
    }

    pub fn has(self, user: usize) -> bool {
        self.meets(Self::one(user))
    }

    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |user| self.has(*user))
    }

    /// The least number of users, one or more of each set.
    pub fn fewest(sets: &[Self]) -> usize {
        let all = sets.iter().copied().collect::<Self>();
        if sets.iter().all(|set| set.len() == 1) {
            return all.len();
        }
        let chosen = (0..=u8::MAX).map(Self).filter(|chosen| {
            let is_met = |set: &Self| set.meets(*chosen);
            chosen.without(all) == Self::default() && sets.iter().all(is_met)
        });
        chosen.map(Self::len).min().unwrap_or_default()
    }
}

impl FromIterator<Users> for Users {
    fn from_iter<T: IntoIterator<Item = Users>>(sets: T) -> Self {
        sets.into_iter().fold(Self::default(), Self::and)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

#[test]
fn the_fewest_users_are_found() {
    let sets = |sets: &[u8]| sets.iter().map(|set| Users(*set)).collect::<Vec<_>>();
    for (given, fewest) in [
        (sets(&[]), 0),
        (sets(&[1, 2, 1]), 2),
        (sets(&[1, 3]), 1),
        (sets(&[3, 6]), 1),
        (sets(&[3, 4, 12]), 2),
    ] {
        assert_eq!(Users::fewest(&given), fewest, "{given:?}");
    }
}
