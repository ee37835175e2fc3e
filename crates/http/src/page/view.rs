//! What the table of segments shows: search, group, chosen segments, sort order and page.

use crate::path::encode;
use crate::problem::Problem;
use crate::query::Query;
use domain::Segment;

/// Longest search string, in characters.
const MAX_SEARCH: usize = 128;
/// Most segments that an address names.
const MAX_CHOSEN: usize = 100;

/// The search, group, chosen segments, sort order and page of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) search: String,
    /// Empty for all groups.
    pub(super) group: String,
    /// The only segments to show; empty for all.
    pub(super) chosen: Vec<Segment>,
    pub(super) sort: Sort,
    pub(super) descending: bool,
    /// From 1.
    pub(super) page: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    Users,
    /// By the change over the range, in users.
    Change,
    /// By the change over the range, in per cent.
    Percent,
}

/// Each sort order, its name in addresses, and the title of its column.
pub(super) const SORTS: [(Sort, &str, &str); 4] = [
    (Sort::Name, "name", "Segment"),
    (Sort::Users, "users", "Users"),
    (Sort::Change, "change", "Change"),
    (Sort::Percent, "percent", "%"),
];

impl Sort {
    pub(super) fn needs_history(self) -> bool {
        matches!(self, Self::Change | Self::Percent)
    }
}

impl View {
    /// Parses the query. The page ignores invalid values.
    pub(super) fn of(query: &Query) -> Result<Self, Problem> {
        let search = query.text("q")?.unwrap_or("").trim();
        let sort = query.text("sort")?.unwrap_or("");
        let sort = SORTS.iter().find(|known| known.1 == sort);
        let sort = sort.map_or(Sort::Users, |known| known.0);
        let descending = match query.text("order")? {
            Some("asc") => false,
            Some("desc") => true,
            _ => sort != Sort::Name,
        };
        let page = query
            .text("page")?
            .and_then(|page| page.trim().parse().ok());
        Ok(Self {
            search: search.chars().take(MAX_SEARCH).collect(),
            group: query.text("group")?.unwrap_or("").to_owned(),
            chosen: query.segments("segment", MAX_CHOSEN)?,
            sort,
            descending,
            page: page.unwrap_or(1).max(1),
        })
    }

    /// Whether every segment is shown.
    pub(super) fn is_every(&self) -> bool {
        self.search.is_empty() && self.group.is_empty() && self.chosen.is_empty()
    }

    /// Whether `segment`, which is in `group`, is shown: its name contains the search string, ignoring case.
    pub(super) fn includes(&self, segment: &Segment, group: Option<&str>) -> bool {
        let search = self.search.to_lowercase();
        (search.is_empty() || segment.as_str().to_lowercase().contains(&search))
            && (self.group.is_empty() || group == Some(&self.group))
            && (self.chosen.is_empty() || self.chosen.contains(segment))
    }

    pub(super) fn sort_name(&self) -> &'static str {
        let known = SORTS.iter().find(|known| known.0 == self.sort);
        known.map_or("users", |known| known.1)
    }

    pub(super) fn order(&self) -> &'static str {
        if self.descending { "desc" } else { "asc" }
    }

    /// The address of the table.
    pub(super) fn link(&self) -> String {
        self.link_to("/")
    }

    /// The address `path` with this view. Defaults are left out.
    pub(super) fn link_to(&self, path: &str) -> String {
        let mut parameters = Vec::new();
        if !self.search.is_empty() {
            parameters.push(format!("q={}", encode(&self.search)));
        }
        if !self.group.is_empty() {
            parameters.push(format!("group={}", encode(&self.group)));
        }
        let chosen = self.chosen.iter();
        parameters.extend(chosen.map(|segment| format!("segment={}", encode(segment.as_str()))));
        if (self.sort, self.descending) != (Sort::Users, true) {
            parameters.push(format!("sort={}&order={}", self.sort_name(), self.order()));
        }
        if self.page > 1 {
            parameters.push(format!("page={}", self.page));
        }
        match parameters.is_empty() {
            true => path.to_owned(),
            false => format!("{path}?{}", parameters.join("&")),
        }
    }

    pub(super) fn at(&self, page: usize) -> String {
        Self {
            page,
            ..self.clone()
        }
        .link()
    }

    /// The address of the table sorted by `sort`. If it is sorted so already, in reverse order.
    pub(super) fn sorted_by(&self, sort: Sort) -> String {
        let descending = match self.sort == sort {
            true => !self.descending,
            false => sort != Sort::Name,
        };
        Self {
            sort,
            descending,
            page: 1,
            ..self.clone()
        }
        .link()
    }

    /// The address of the segments of `group`.
    pub(super) fn of_group(&self, group: &str) -> String {
        Self {
            group: group.to_owned(),
            page: 1,
            ..self.clone()
        }
        .link()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(sort: Sort) -> View {
        View {
            search: "a&b".into(),
            group: String::new(),
            chosen: Vec::new(),
            sort,
            descending: true,
            page: 3,
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        let found = |search: &str, name: &str| {
            let search = search.to_owned();
            let view = View {
                search,
                ..view(Sort::Name)
            };
            view.includes(&Segment::new(name).unwrap(), None)
        };
        assert!(found("SPORT", "Winter Sports") && found("ä", "Ärzte"));
        assert!(!found("SPORT", "news"));
        let group = View {
            search: String::new(),
            group: "news".into(),
            ..view(Sort::Name)
        };
        let segment = Segment::new("news/a").unwrap();
        assert!(group.includes(&segment, Some("news")) && !group.includes(&segment, None));
    }

    #[test]
    fn links_keep_what_was_searched_for() {
        let view = view(Sort::Users);
        assert_eq!(view.at(4), "/?q=a%26b&page=4");
        assert_eq!(
            view.sorted_by(Sort::Users),
            "/?q=a%26b&sort=users&order=asc"
        );
        assert_eq!(view.sorted_by(Sort::Name), "/?q=a%26b&sort=name&order=asc");
        assert_eq!(view.of_group("x/y"), "/?q=a%26b&group=x%2Fy");
        assert_eq!(View::of(&Query::default()).unwrap().link(), "/");
    }
}
