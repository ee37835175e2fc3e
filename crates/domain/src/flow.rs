//! Who entered and who left a segment.

/// The number of times that a user entered and left a segment over the configured window, in a span of time.
///
/// A user who was not counted **enters** when a pair of theirs is counted: in the slot in which it is taken in, however late it
/// is. A user who was counted **leaves** when the slot of their last visit leaves the window, or when they are erased. So the
/// count at the end of a span is the count at its start, plus `entered`, less `left`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Users who entered. A user who entered twice counts twice.
    pub entered: u64,
    /// Users who left. A user who left twice counts twice.
    pub left: u64,
}

impl Flow {
    /// What happened in both spans.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            entered: self.entered + other.entered,
            left: self.left + other.left,
        }
    }

    /// What happened since `before`, where both are totals since the same instant; `None` if they are not.
    #[must_use]
    pub fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            entered: self.entered.checked_sub(before.entered)?,
            left: self.left.checked_sub(before.left)?,
        })
    }
}
