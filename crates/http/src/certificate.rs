//! What was counted, and how current it is: members of every count.

use std::hash::{Hash, Hasher};

use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::schema;
use crate::reply::{age_seconds, rfc3339};
use domain::{Timestamp, Window};
use engine::counts::{Answer, CountResult, Source};

/// What was counted, and how current it is. Flattened into an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Certificate {
    /// The window that was counted.
    pub(crate) window_seconds: u64,
    /// The instant for which the numbers are exact.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) as_of: Timestamp,
    /// How long ago `as_of` was, to the millisecond.
    #[schema(minimum = 0)]
    pub(crate) age_seconds: f64,
    /// Where the numbers came from.
    #[schema(schema_with = schema::source)]
    pub(crate) source: &'static str,
    /// Whether every source failed, so that these are the last known numbers.
    pub(crate) stale: bool,
}

impl Certificate {
    /// That of an answer about sets of users.
    pub(crate) fn of<T>(answer: &Answer<T>, now: Timestamp) -> Self {
        Self::new(
            answer.window,
            answer.as_of,
            answer.source,
            answer.stale,
            now,
        )
    }

    /// That of the count of one segment.
    pub(crate) fn of_count(count: &CountResult, now: Timestamp) -> Self {
        Self::new(
            count.window,
            count.count.as_of,
            count.source,
            count.stale,
            now,
        )
    }

    fn new(window: Window, as_of: Timestamp, source: Source, stale: bool, now: Timestamp) -> Self {
        Self {
            window_seconds: window.seconds(),
            as_of,
            age_seconds: age_seconds(as_of, now),
            source: source.as_str(),
            stale,
        }
    }
}

/// Without instant, age and source: an answer that changes no number has the same entity tag.
impl Hash for Certificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.window_seconds, self.stale).hash(state);
    }
}
