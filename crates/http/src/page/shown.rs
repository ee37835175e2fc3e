//! The content of one part of a page.

/// The content of one part of a page. An empty result and a failed read are shown differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown<T> {
    /// A value.
    Something(T),
    /// The read succeeded with an empty result.
    Nothing,
    /// The read failed.
    Failed,
}

impl<T> Shown<T> {
    pub(super) fn is_failed(&self) -> bool {
        matches!(self, Self::Failed)
    }

    /// Applies `f` to a value.
    pub(super) fn and_then<U>(self, f: impl FnOnce(T) -> Shown<U>) -> Shown<U> {
        match self {
            Self::Something(value) => f(value),
            Self::Nothing => Shown::Nothing,
            Self::Failed => Shown::Failed,
        }
    }
}

impl<T> From<Option<T>> for Shown<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Self::Something)
    }
}
