//! The rules for values in rows of [`settings!`](super::row::settings): ranges, checks and descriptions.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use domain::text::duration_text;
use serde::Deserialize;

/// What is valid, for messages and documents.
pub(super) enum Valid {
    As(&'static str),
    /// The kind of value, and the range.
    Range(&'static str, String),
}

/// Which values of type `T` a setting allows, in addition to what the parser of `T` requires.
pub(super) trait Rule<T> {
    fn allows(&self, value: &T) -> bool;
    fn valid(&self) -> Valid;
}

/// A description allows everything that the parser does. `check.rs` may be stricter.
impl<T> Rule<T> for &'static str {
    fn allows(&self, _: &T) -> bool {
        true
    }

    fn valid(&self) -> Valid {
        Valid::As(self)
    }
}

impl<T: Ranged> Rule<T> for RangeInclusive<T> {
    fn allows(&self, value: &T) -> bool {
        self.contains(value)
    }

    fn valid(&self) -> Valid {
        Valid::Range(T::KIND, format!("{} to {}", self.start(), self.end()))
    }
}

/// For a setting that may be unset.
impl<T: Ranged> Rule<Option<T>> for RangeInclusive<T> {
    fn allows(&self, value: &Option<T>) -> bool {
        value.as_ref().is_none_or(|value| self.contains(value))
    }

    fn valid(&self) -> Valid {
        Rule::<T>::valid(self)
    }
}

/// A check of a string, and the description of what passes it.
pub(super) struct Checked(pub(super) fn(&str) -> bool, pub(super) &'static str);

impl Rule<String> for Checked {
    fn allows(&self, value: &String) -> bool {
        (self.0)(value)
    }

    fn valid(&self) -> Valid {
        Valid::As(self.1)
    }
}

/// For a setting that may be unset.
impl Rule<Option<String>> for Checked {
    fn allows(&self, value: &Option<String>) -> bool {
        value.as_deref().is_none_or(self.0)
    }

    fn valid(&self) -> Valid {
        Valid::As(self.1)
    }
}

/// A type whose values can be limited to a range. `Display` writes a value as a setting would have it.
pub(super) trait Ranged: PartialOrd + fmt::Display {
    const KIND: &'static str;
}

impl Ranged for u32 {
    const KIND: &'static str = "a whole number";
}

impl Ranged for usize {
    const KIND: &'static str = "a whole number";
}

impl Ranged for f64 {
    const KIND: &'static str = "a number";
}

impl Ranged for ByteSize {
    const KIND: &'static str = "a size";
}

impl Ranged for Time {
    const KIND: &'static str = "a duration";
}

/// A duration in the format of `humantime`, such as `1h 30m`.
#[derive(Clone, Copy, PartialEq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub(super) struct Time(#[serde(with = "humantime_serde")] pub(super) Duration);

impl Time {
    pub(super) const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    pub(super) const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    pub(super) const fn minutes(count: u64) -> Self {
        Self(Duration::from_mins(count))
    }

    pub(super) const fn hours(count: u64) -> Self {
        Self(Duration::from_hours(count))
    }

    pub(super) const fn days(count: u64) -> Self {
        Self::hours(24 * count)
    }
}

/// Whole seconds, or milliseconds below one second: no range ends elsewhere.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => write!(f, "{}ms", self.0.as_millis()),
            seconds => f.write_str(&duration_text(seconds)),
        }
    }
}
