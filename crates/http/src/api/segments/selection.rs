//! Which segments a list has: all with users, or exactly the named ones; and of these, those whose names match.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::problem::Problem;
use crate::query::Query;
use domain::{Reach, Segment, Window};
use engine::Headcount;
use engine::counts::Listed;

/// Most `segment` parameters of a request.
pub(in crate::api) const MAX_SEGMENTS: usize = 1_000;

/// The segments that a request selects.
pub(in crate::api) struct Selection {
    /// In order. Empty if the request names none.
    named: BTreeSet<Segment>,
    prefix: String,
    /// The part of the name, in lower case.
    part: String,
}

/// The sort key by users. A segment without a count comes last.
pub(in crate::api) fn users(listed: &Listed) -> u64 {
    listed.count.map_or(0, |count| count.users)
}

impl Selection {
    pub(in crate::api) fn of(query: &Query) -> Result<Self, Problem> {
        let named = query.segments("segment", MAX_SEGMENTS)?;
        Ok(Self {
            named: named.into_iter().collect(),
            prefix: query.text("prefix")?.unwrap_or_default().to_owned(),
            part: query.text("q")?.unwrap_or_default().to_lowercase(),
        })
    }

    /// Whether the request names the segments.
    pub(in crate::api) fn is_by_name(&self) -> bool {
        !self.named.is_empty()
    }

    /// The counts among which the selected ones are, sorted by name.
    pub(in crate::api) async fn list(
        &self,
        app: &Headcount,
        window: Option<Window>,
        reach: &Reach,
    ) -> Result<Arc<[Listed]>, Problem> {
        if self.is_by_name() {
            // Names beyond reach are refused before.
            let named = self.named.iter().filter(|segment| self.has(segment, reach));
            let counted = app.counts().list_of(named.cloned().collect(), window);
            return Ok(counted.await.into());
        }
        match window {
            Some(window) => Ok(app.counts().list(window).await?),
            None => Ok(app.counts().list_own().await?),
        }
    }

    /// Those of `list` that are selected, and within `reach`.
    pub(in crate::api) fn rows<'a>(&self, list: &'a [Listed], reach: &Reach) -> Vec<&'a Listed> {
        let rows = list.iter();
        rows.filter(|listed| self.has(&listed.segment, reach))
            .collect()
    }

    fn has(&self, segment: &Segment, reach: &Reach) -> bool {
        let name = segment.as_str();
        name.starts_with(&self.prefix)
            && reach.covers(name)
            // Most lists are not searched.
            && (self.part.is_empty() || name.to_lowercase().contains(&self.part))
    }
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
