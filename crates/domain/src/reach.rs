//! Which segments a token is for.

use std::sync::Arc;

use crate::Segment;

/// The segments that a caller may name and see; every one by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach(Option<Arc<[Pattern]>>);

/// One segment, or all whose names begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Name(Box<str>),
    Prefix(Box<str>),
}

/// What a pattern is, to complete "must be".
pub const PATTERN: &str = "a segment's name, or the beginning of names and a * at its end";

impl Reach {
    /// Every segment.
    pub fn every() -> Self {
        Self(None)
    }

    /// No segment at all.
    pub fn nothing() -> Self {
        Self(Some(Arc::default()))
    }

    /// The segments that `patterns` name, and no other: none at all where there is no pattern. `None` for one that can
    /// be no pattern.
    pub fn of(patterns: impl IntoIterator<Item = impl AsRef<str>>) -> Option<Self> {
        let patterns = patterns
            .into_iter()
            .map(|text| Pattern::parse(text.as_ref()));
        Some(Self(Some(patterns.collect::<Option<_>>()?)))
    }

    /// Whether no segment is left out.
    pub fn is_every(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the segment called `name` is among them.
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
        // What names may begin with: a prefix may end in a blank, which no name does.
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
