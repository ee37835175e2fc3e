//! The completeness of a count.

use jiff::{SignedDuration, Timestamp};

use crate::Window;

/// Since when the store has every pair, and whether a count over a window is complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Covered {
    /// The store has every pair that was seen since then; `None` if it is not known.
    pub since: Option<Timestamp>,
    /// Whether that is not later than the start of the window.
    pub complete: bool,
}

impl Covered {
    /// The completeness of two counts together.
    pub fn and(self, other: Self) -> Self {
        Self {
            since: self
                .since
                .zip(other.since)
                .map(|(ours, theirs)| ours.max(theirs)),
            complete: self.complete && other.complete,
        }
    }

    /// The first instant at which a count over `window` is complete, if no other pair is lost; `None` if it is not known.
    pub fn complete_from(self, window: Window) -> Option<Timestamp> {
        let (since, resolution) = (self.since?, window.resolution());
        let step = i64::from(resolution.seconds());
        let first = resolution.start_of(resolution.slot_of(since));
        let first = match first < since {
            true => first.checked_add(SignedDuration::from_secs(step)).ok()?,
            false => first,
        };
        let rest = step * (i64::from(window.slots()) - 1);
        first.checked_add(SignedDuration::from_secs(rest)).ok()
    }

    /// A sentence for people about a count over `window` that is not complete; `None` if it is.
    pub fn notice(self, window: Window) -> Option<String> {
        if self.complete {
            return None;
        }
        let Some(since) = self.since else {
            return Some(
                "It is not known since when these numbers are complete: users may be missing."
                    .to_owned(),
            );
        };
        let mut notice = format!(
            "Not complete yet: users who were last seen before {} may be missing.",
            minutes(since)
        );
        if let Some(from) = self.complete_from(window) {
            let length = crate::text::duration_text(window.seconds());
            notice += &format!(
                " Numbers over {length} are complete from {} on.",
                minutes(from)
            );
        }
        Some(notice)
    }
}

/// An instant for people, rounded up to the minute.
fn minutes(at: Timestamp) -> String {
    let up = at
        .checked_add(SignedDuration::from_secs(60))
        .ok()
        .filter(|_| at.as_second() % 60 != 0 || at.subsec_nanosecond() != 0);
    up.unwrap_or(at).strftime("%Y-%m-%d %H:%M UTC").to_string()
}
