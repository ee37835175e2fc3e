//! How a chart is drawn: with the period before, and from which base. Query parameters of pages with a chart.

use super::chart::Base;
use crate::path::with;
use crate::problem::Problem;
use crate::query::Query;

/// How a chart is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Whether the line of the period before is drawn too.
    pub(super) before: bool,
    pub(super) base: Base,
}

impl Look {
    /// Parses the query. Invalid values are ignored.
    pub(super) fn of(query: &Query) -> Result<Self, Problem> {
        Ok(Self {
            before: query.text("before")? == Some("1"),
            base: match query.text("base")? {
                Some("lowest") => Base::Lowest,
                _ => Base::Zero,
            },
        })
    }

    /// `address` with the parameters of this look, without the defaults.
    pub(super) fn link(self, address: &str) -> String {
        let mut address = address.to_owned();
        if self.before {
            address = with(&address, "before=1");
        }
        if self.base == Base::Lowest {
            address = with(&address, "base=lowest");
        }
        address
    }

    pub(super) fn with_other_before(self) -> Self {
        Self {
            before: !self.before,
            ..self
        }
    }

    pub(super) fn with_other_base(self) -> Self {
        let base = match self.base {
            Base::Zero => Base::Lowest,
            Base::Lowest => Base::Zero,
        };
        Self { base, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_read_back_from_its_link() {
        let plain = Look::of(&Query::default()).unwrap();
        assert_eq!(plain.link("/a"), "/a");
        let other = plain.with_other_before().with_other_base();
        assert_eq!(other.link("/a?x=1"), "/a?x=1&before=1&base=lowest");
        let query = Query::parse("before=1&base=lowest");
        assert_eq!(Look::of(&query).unwrap(), other);
    }
}
