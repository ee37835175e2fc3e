//! How many users entered and left a segment.

/// The number of times that a user entered and left a segment over the configured window, in a span of time.
///
/// A user who is not counted **enters** when a pair makes them counted: in the slot in which the pair is received, however
/// late it is. A user who is counted **leaves** when the slot of their last visit drops out of the window, or when they are
/// erased. So the count at the end of a span is the count at its start, plus `entered`, minus `left`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Users who entered. A user who entered twice counts twice.
    pub entered: u64,
    /// Users who left. A user who left twice counts twice.
    pub left: u64,
}

impl Flow {
    /// The sum of two spans.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            entered: self.entered + other.entered,
            left: self.left + other.left,
        }
    }

    /// The difference to an earlier total; `None` if the two do not begin at the same instant.
    #[must_use]
    pub fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            entered: self.entered.checked_sub(before.entered)?,
            left: self.left.checked_sub(before.left)?,
        })
    }
}
