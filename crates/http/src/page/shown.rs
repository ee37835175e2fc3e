//! What there is to show in one place of a page.

/// That there is nothing and that nothing could be read are different things to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown<T> {
    /// This.
    Something(T),
    /// It was read, and there is nothing.
    Nothing,
    /// It could not be read.
    Failed,
}

impl<T> Shown<T> {
    pub(super) fn is_failed(&self) -> bool {
        matches!(self, Self::Failed)
    }

    /// What `f` makes of something.
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
