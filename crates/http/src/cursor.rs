//! The cursor of a page of segments: the sort key of its last entry, so that changes before it do not shift later pages.

use std::fmt;

use base16ct::HexDisplay;
use domain::Segment;

/// The sort order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// By name.
    Name,
    /// The most users first, then by name.
    Users,
}

/// The sort key of the last entry of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// `None` if the list is sorted by name.
    users: Option<u64>,
    segment: Segment,
}

impl Cursor {
    /// The cursor after the entry `segment`, which has `users`.
    pub(super) fn at(sort: Sort, segment: &Segment, users: u64) -> Self {
        Self {
            users: (sort == Sort::Users).then_some(users),
            segment: segment.clone(),
        }
    }

    /// Whether the entry `segment`, which has `users`, comes after the cursor.
    pub(super) fn is_before(&self, segment: &Segment, users: u64) -> bool {
        match self.users {
            None => *segment > self.segment,
            Some(own) => users < own || (users == own && *segment > self.segment),
        }
    }

    /// Parses a cursor. `None` if it is invalid or for another sort order.
    pub(super) fn parse(text: &str, sort: Sort) -> Option<Self> {
        let (users, name) = text.split_once('-')?;
        let users = match sort {
            Sort::Name if users == "n" => None,
            Sort::Users => Some(users.strip_prefix('u')?.parse().ok()?),
            Sort::Name => return None,
        };
        let name = base16ct::mixed::decode_vec(name).ok()?;
        let segment = Segment::new(std::str::from_utf8(&name).ok()?).ok()?;
        Some(Self { users, segment })
    }
}

/// The form needs no escaping in a URL. It is opaque to clients.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.users {
            None => f.write_str("n")?,
            Some(users) => write!(f, "u{users}")?,
        }
        write!(f, "-{:x}", HexDisplay(self.segment.as_str().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_by_its_own_sort_only() {
        for name in ["a", "a/b 🏀%&-", &"x".repeat(128)] {
            let segment = Segment::new(name).unwrap();
            for (sort, other) in [(Sort::Name, Sort::Users), (Sort::Users, Sort::Name)] {
                let cursor = Cursor::at(sort, &segment, 7);
                let text = cursor.to_string();
                assert!(
                    text.bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                );
                assert_eq!(Cursor::parse(&text, sort), Some(cursor));
                assert_eq!(Cursor::parse(&text, other), None);
            }
        }
        for bad in [
            "", "n", "n-", "n-6", "n-616", "n-zz", "n-+1", "n-0x61", "n-ff", "n-é", "u-61",
            "ux-61", "n-00", "u1", "u1-6", "é-61",
        ] {
            assert_eq!(Cursor::parse(bad, Sort::Name), None, "{bad}");
            assert_eq!(Cursor::parse(bad, Sort::Users), None, "{bad}");
        }
    }
}
