//! Groups of segments by the first part of their names: `news/politics` and `news/sports` are in `news`.

use std::collections::BTreeMap;

use domain::Segment;

/// The characters that end a prefix.
const SEPARATORS: [char; 4] = ['/', ':', '.', '>'];

/// A group, and how many segments it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) segments: usize,
}

/// The group of a segment by its name; `None` for a name without a prefix.
pub(super) fn group_of(segment: &Segment) -> Option<&str> {
    let (prefix, rest) = segment.as_str().split_once(SEPARATORS)?;
    let prefix = prefix.trim_end();
    (!prefix.is_empty() && !rest.trim_start().is_empty()).then_some(prefix)
}

/// The groups that have at least two of `segments`, the largest first.
pub(super) fn groups<'a>(segments: impl Iterator<Item = &'a Segment>) -> Vec<Group> {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for group in segments.filter_map(group_of) {
        *sizes.entry(group).or_default() += 1;
    }
    sizes.retain(|_, segments| *segments > 1);
    let mut groups: Vec<_> = sizes
        .into_iter()
        .map(|(name, segments)| Group {
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

    #[test]
    fn a_group_has_at_least_two_segments() {
        let names = [
            "news/a", "news/b", "shop: a", "shop: b", "shop:c", "alone.x", "plain", "/a", "/b",
            "x/",
        ];
        let segments = names.map(|name| Segment::new(name).unwrap());
        let groups = groups(segments.iter());
        let groups: Vec<_> = groups
            .iter()
            .map(|group| (group.name.as_str(), group.segments))
            .collect();
        assert_eq!(groups, [("shop", 3), ("news", 2)]);
    }
}
