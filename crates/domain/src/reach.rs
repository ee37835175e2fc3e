//! The segments that a token gives access to.

use std::sync::Arc;

use crate::Segment;

/// The segments that a caller may name and see. The default is every segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach(Option<Arc<[Pattern]>>);

/// One segment, or all segments with a common prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Name(Box<str>),
    Prefix(Box<str>),
}

/// A description of a valid pattern, for messages of the form "must be ...".
pub const PATTERN: &str = "a segment name, or a prefix of segment names followed by *";

impl Reach {
    /// Every segment.
    pub fn every() -> Self {
        Self(None)
    }

    /// No segment.
    pub fn nothing() -> Self {
        Self(Some(Arc::default()))
    }

    /// Exactly the segments that match one of `patterns`; no segment if there are no patterns. `None` if a pattern is
    /// invalid.
    pub fn of(patterns: impl IntoIterator<Item = impl AsRef<str>>) -> Option<Self> {
        let patterns = patterns
            .into_iter()
            .map(|text| Pattern::parse(text.as_ref()));
        Some(Self(Some(patterns.collect::<Option<_>>()?)))
    }

    /// Whether every segment is included.
    pub fn is_every(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the segment called `name` is included.
    pub fn covers(&self, name: &str) -> bool {
        match &self.0 {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| pattern.covers(name)),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let Some(prefix) = text.strip_suffix('*') else {
            return Some(Self::Name(Segment::new(text).ok()?.as_str().into()));
        };
        // The prefix is checked with a letter appended, because a prefix may end in a blank and a name may not.
        let may_begin = prefix.is_empty() || Segment::new(&format!("{prefix}x")).is_ok();
        may_begin.then(|| Self::Prefix(prefix.into()))
    }

    fn covers(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => **own == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_beginnings_are_covered_and_nothing_else() {
        let reach = Reach::of(["news", "sports/*", "Black *"]).unwrap();
        assert!(!reach.is_every());
        for (name, covered) in [
            ("news", true),
            ("news2", false),
            ("New", false),
            ("News", false),
            ("sports/", true),
            ("sports/golf", true),
            ("sports", false),
            ("Black Friday", true),
            ("Blackboard", false),
            ("*", false),
        ] {
            assert_eq!(reach.covers(name), covered, "{name}");
        }
        assert!(Reach::every().covers("anything") && Reach::default().is_every());
        assert!(Reach::of(["*"]).unwrap().covers("anything"));
        assert!(!Reach::of([""; 0]).unwrap().covers("anything"));
        for bad in [
            "",
            " a",
            "a\n*",
            &"x".repeat(129),
            &format!("{}*", "x".repeat(128)),
        ] {
            assert_eq!(Reach::of([bad]), None, "{bad}");
        }
    }
}
