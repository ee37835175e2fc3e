//! Completeness: two members of every response with numbers.

use serde::Serialize;
use utoipa::ToSchema;
use warp::http::header::{HeaderMap, HeaderName};

use crate::document::insert;
use crate::reply::rfc3339_or_null;
use domain::{Covered, Timestamp, Window};
use engine::Headcount;

pub(crate) const COVERED_SINCE: HeaderName = HeaderName::from_static("headcount-covered-since");
pub(crate) const COMPLETE: HeaderName = HeaderName::from_static("headcount-complete");

/// Since when the store has every pair, and whether the numbers are complete. Flattened into a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[schema(as = Covered)]
pub(crate) struct CoveredFields {
    /// The store has every pair that was seen since then. Null while it is not known.
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    covered_since: Option<Timestamp>,
    /// False if that is later than the start of the window, so that users may be missing.
    complete: bool,
}

impl CoveredFields {
    /// Those of a count over `window` as of `as_of`.
    pub(crate) fn of(app: &Headcount, window: Window, as_of: Timestamp) -> Self {
        app.coverage().of(window, as_of).into()
    }

    /// Those of many counts together, each with its window and instant. Of none, what holds now for the configured window.
    pub(crate) fn of_all(
        app: &Headcount,
        counts: impl Iterator<Item = (Window, Timestamp)>,
    ) -> Self {
        // Most counts of a list are over the same window and of the same instant.
        let mut last = None;
        let counts = counts.filter(|count| last.replace(*count) != Some(*count));
        let covered = counts.map(|(window, as_of)| app.coverage().of(window, as_of));
        let together = covered.reduce(Covered::and);
        let now = || app.covered(app.frame().full_window());
        together.unwrap_or_else(now).into()
    }

    /// Those of both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Covered::from(self).and(other.into()).into()
    }

    /// As headers, for CSV.
    pub(crate) fn insert_into(self, headers: &mut HeaderMap) {
        if let Some(since) = self.covered_since {
            insert(headers, COVERED_SINCE, since.to_string());
        }
        insert(headers, COMPLETE, self.complete.to_string());
    }
}

impl From<CoveredFields> for Covered {
    fn from(fields: CoveredFields) -> Self {
        Self {
            since: fields.covered_since,
            complete: fields.complete,
        }
    }
}

impl From<Covered> for CoveredFields {
    fn from(covered: Covered) -> Self {
        Self {
            covered_since: covered.since,
            complete: covered.complete,
        }
    }
}
