//! Groups of segments: those of their settings, or else the first part of their names: `news/politics` and `news/sports` are
//! in `news`.

use std::collections::BTreeMap;

use domain::Segment;
use engine::segments::SegmentSettings;

/// The characters that end a prefix.
const SEPARATORS: [char; 4] = ['/', ':', '.', '>'];

/// The group of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    /// Whether the settings of the segment name it.
    is_set: bool,
}

/// A group, and how many segments it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SizedGroup {
    pub(super) name: String,
    pub(super) segments: usize,
}

impl Group {
    /// The group of a segment; `None` for one without a group in its settings whose name has no prefix.
    pub(super) fn of(segment: &Segment, settings: &SegmentSettings) -> Option<Self> {
        let set = settings.group();
        let name = set.or_else(|| prefix(segment))?.to_owned();
        let is_set = set.is_some();
        Some(Self { name, is_set })
    }
}

fn prefix(segment: &Segment) -> Option<&str> {
    let (prefix, rest) = segment.as_str().split_once(SEPARATORS)?;
    let prefix = prefix.trim_end();
    (!prefix.is_empty() && !rest.trim_start().is_empty()).then_some(prefix)
}

/// The groups of segments, the largest first. One that only the names of segments have needs two of them.
pub(super) fn sized<'a>(groups: impl Iterator<Item = &'a Group>) -> Vec<SizedGroup> {
    let mut sizes: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    for Group { name, is_set } in groups {
        let (segments, any_set) = sizes.entry(name).or_default();
        *segments += 1;
        *any_set |= is_set;
    }
    sizes.retain(|_, (segments, any_set)| *segments > 1 || *any_set);
    let mut groups: Vec<_> = sizes
        .into_iter()
        .map(|(name, (segments, _))| SizedGroup {
            name: name.to_owned(),
            segments,
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.segments));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::TimeFrame;
    use std::time::Duration;

    fn found(segments: &[(&str, Option<&str>)]) -> Vec<(String, usize)> {
        let minute = Duration::from_mins(1);
        let frame = TimeFrame::new(minute, minute, minute).unwrap();
        let groups = segments.iter().filter_map(|(name, group)| {
            let group = group.map(str::to_owned);
            let settings = SegmentSettings::new(&frame, None, None, group).unwrap();
            Group::of(&Segment::new(name).unwrap(), &settings)
        });
        let groups: Vec<_> = groups.collect();
        let sized = sized(groups.iter()).into_iter();
        sized.map(|group| (group.name, group.segments)).collect()
    }

    #[test]
    fn a_group_of_names_has_at_least_two_segments() {
        let names = [
            "news/a", "news/b", "shop: a", "shop: b", "shop:c", "alone.x", "plain", "/a", "/b",
            "x/",
        ];
        let groups = found(&names.map(|name| (name, None)));
        assert_eq!(groups, [("shop".to_owned(), 3), ("news".to_owned(), 2)]);
    }

    #[test]
    fn the_group_that_is_set_counts_before_the_name() {
        let groups = found(&[
            ("news/a", Some("summer")),
            ("news/b", None),
            ("news/c", None),
            ("plain", Some("news")),
        ]);
        assert_eq!(groups, [("news".to_owned(), 3), ("summer".to_owned(), 1)]);
    }
}
