//! Which segments a list has: all with users, or exactly the named ones; and of these, those whose names match.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};

use crate::problem::Problem;
use crate::query::Query;
use domain::{Reach, Segment, Window};
use engine::Headcount;
use engine::counts::Listed;

/// Most `segment` parameters of a request.
pub(super) const MAX_SEGMENTS: usize = 1_000;
/// Names that are looked up in the cache's list concurrently.
const CONCURRENT_LOOKUPS: usize = 16;

/// The segments that a request selects.
pub(super) struct Selection {
    /// In order. Empty if the request names none.
    named: BTreeSet<Segment>,
    prefix: String,
    /// The part of the name, in lower case.
    part: String,
}

/// A segment of the list.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) listed: Listed,
    /// Whether a pair of this segment was received within the configured window.
    pub(super) known: bool,
}

impl Row {
    pub(super) fn segment(&self) -> &Segment {
        &self.listed.segment
    }

    /// The sort key by users. A segment without a count comes last.
    pub(super) fn users(&self) -> u64 {
        self.listed.count.map_or(0, |count| count.users)
    }
}

impl Selection {
    pub(super) fn of(query: &Query) -> Result<Self, Problem> {
        let named = query.segments("segment", MAX_SEGMENTS)?;
        Ok(Self {
            named: named.into_iter().collect(),
            prefix: query.text("prefix")?.unwrap_or_default().to_owned(),
            part: query.text("q")?.unwrap_or_default().to_lowercase(),
        })
    }

    /// Whether the request names the segments.
    pub(super) fn is_by_name(&self) -> bool {
        !self.named.is_empty()
    }

    /// The selected segments within `reach`, sorted by name.
    pub(super) async fn rows(
        &self,
        app: &Headcount,
        window: Option<Window>,
        reach: &Reach,
    ) -> Result<Vec<Row>, Problem> {
        if self.is_by_name() {
            // Names beyond reach are refused before.
            let named = self.named.iter().filter(|segment| self.has(segment, reach));
            return Ok(rows_of(app, named.cloned().collect(), window).await);
        }
        let list = match window {
            Some(window) => app.counts().list(window).await?,
            None => app.counts().list_own().await?,
        };
        let selected = list
            .iter()
            .filter(|listed| self.has(&listed.segment, reach));
        let rows = selected.map(|listed| Row {
            listed: listed.clone(),
            known: true,
        });
        Ok(rows.collect())
    }

    fn has(&self, segment: &Segment, reach: &Reach) -> bool {
        let name = segment.as_str();
        name.starts_with(&self.prefix)
            && reach.covers(name)
            // Most lists are not searched.
            && (self.part.is_empty() || name.to_lowercase().contains(&self.part))
    }
}

/// The rows of `segments`, also of those without users.
async fn rows_of(app: &Headcount, segments: Vec<Segment>, window: Option<Window>) -> Vec<Row> {
    let listed = app.counts().list_of(segments, window).await;
    stream::iter(listed)
        .map(|listed| async move {
            let has_users = listed.withheld || listed.count.is_some_and(|count| count.users > 0);
            let known = has_users || app.has_seen(&listed.segment).await;
            Row { listed, known }
        })
        .buffered(CONCURRENT_LOOKUPS)
        .collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_by_prefix_part_and_reach() {
        let has = |query: &[(&str, &str)], name| {
            let selection = Selection::of(&Query::of(query)).unwrap();
            let reach = Reach::of(["sport*", "Ünited"]).unwrap();
            selection.has(&Segment::new(name).unwrap(), &reach)
        };
        for (query, name, expected) in [
            (&[][..], "sports", true),
            (&[], "news", false),
            (&[("prefix", "sp")], "sports", true),
            (&[("prefix", "Sp")], "sports", false),
            (&[("q", "ORT")], "sports", true),
            (&[("q", "üNIT")], "Ünited", true),
            (&[("q", "ort"), ("prefix", "sports/")], "sports", false),
            (&[("q", "ski"), ("prefix", "sports/")], "sports/Ski", true),
            (&[("q", "")], "sports", true),
        ] {
            assert_eq!(has(query, name), expected, "{query:?} {name}");
        }
    }

    #[test]
    fn names_are_bounded_and_valid() {
        let many = |number| {
            let names: Vec<_> = (0..number).map(|index| format!("s{index}")).collect();
            let pairs: Vec<_> = names
                .iter()
                .map(|name| ("segment", name.as_str()))
                .collect();
            Selection::of(&Query::of(&pairs)).map(|selection| selection.named.len())
        };
        assert_eq!(many(MAX_SEGMENTS).unwrap(), MAX_SEGMENTS);
        let refused = many(MAX_SEGMENTS + 1).unwrap_err();
        assert_eq!(refused.summary(), (400, "invalid_parameter"));
        let twice = Selection::of(&Query::of(&[("segment", "a"), ("segment", "a")])).unwrap();
        assert_eq!(twice.named.len(), 1);
        let blank = Selection::of(&Query::of(&[("segment", " ")])).map(|_| ());
        assert_eq!(blank.unwrap_err().summary(), (400, "invalid_segment"));
    }
}
