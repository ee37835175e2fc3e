//! Set expressions over segments: `"front page" AND (news OR sports) NOT "Black Friday"`.
//!
//! | Written | Users |
//! |---|---|
//! | `news`, `"front page"` | of this segment; names with white space, parentheses or quotes need double quotes |
//! | `*` | of any segment |
//! | `a AND b` | in both |
//! | `a OR b` | in at least one |
//! | `a NOT b`, `a AND NOT b` | in `a` and not in `b` |
//! | `NOT a` | of any segment, but not of `a` |
//!
//! NOT binds tighter than AND, and AND tighter than OR. In quotes, `\"` is a quote and `\\` a backslash. Operators are
//! upper case; a word that looks like an operator, such as `and` or `&&`, is an error unless it is quoted.
//!
//! [`token`] splits the string, [`mod@parse`] builds the [`Set`], [`mod@print`] formats it, [`invalid`] has the errors.

mod invalid;
mod parse;
mod print;
#[cfg(test)]
mod tests;
mod token;

use std::str::FromStr;

use super::Segment;

pub use invalid::{InvalidExpression, Problem};
pub use token::Operator;

/// The longest expression, in bytes: fits a query string, which proxies commonly limit to 8 KiB, with most characters
/// percent-encoded.
pub const MAX_BYTES: usize = 4_096;

/// The most parentheses and NOTs around a name. It bounds the recursion of the parser and of every walk over the
/// result; expressions that people write have fewer than five.
pub const MAX_DEPTH: usize = 32;

/// The most names in an expression, repetitions included: an answer takes time in proportion to it.
pub const MAX_NAMES: usize = 64;

/// A valid set expression within the limits.
///
/// `Display` gives its canonical form, which parses to an equal expression: one blank between words, `AND` before
/// `NOT`, only the parentheses that are needed, quotes only where needed. It can serve as a key of a cache. Operands
/// keep their order: `a AND b` and `b AND a` are not equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expression(Set);

/// A set of users. Of a parsed expression, `And` and `Or` have at least two operands, and none of the same kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Set {
    /// The users of a segment.
    Segment(Segment),
    /// The users of any segment.
    Everybody,
    /// The users of any segment that are not in the set.
    Not(Box<Self>),
    /// The users in all sets.
    And(Vec<Self>),
    /// The users in at least one set.
    Or(Vec<Self>),
}

impl Expression {
    /// Parses `text`. The error has the position of the first mistake.
    pub fn parse(text: &str) -> Result<Self, InvalidExpression> {
        parse::parse(text).map(Self)
    }

    /// The set that the expression means.
    pub fn set(&self) -> &Set {
        &self.0
    }

    /// The distinct segments, in the order of their first appearance.
    pub fn segments(&self) -> Vec<&Segment> {
        let mut segments = Vec::new();
        self.0.add_segments(&mut segments);
        segments
    }

    /// Whether the answer depends on segments that the expression does not name: it has a `*`, or a NOT without a set
    /// to take users from. A caller that may not see every segment may not ask for it.
    pub fn needs_every_segment(&self) -> bool {
        self.0.needs_every_segment()
    }
}

impl From<Segment> for Expression {
    fn from(segment: Segment) -> Self {
        Self(Set::Segment(segment))
    }
}

impl FromStr for Expression {
    type Err = InvalidExpression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Set {
    fn add_segments<'a>(&'a self, segments: &mut Vec<&'a Segment>) {
        match self {
            // At most `MAX_NAMES` are compared.
            Self::Segment(segment) if segments.contains(&segment) => {}
            Self::Segment(segment) => segments.push(segment),
            Self::Everybody => {}
            Self::Not(set) => set.add_segments(segments),
            Self::And(sets) | Self::Or(sets) => {
                for set in sets {
                    set.add_segments(segments);
                }
            }
        }
    }

    fn needs_every_segment(&self) -> bool {
        match self {
            Self::Segment(_) => false,
            Self::Everybody | Self::Not(_) => true,
            // One operand that names its users bounds the others.
            Self::And(sets) => sets.iter().all(Self::needs_every_segment),
            Self::Or(sets) => sets.iter().any(Self::needs_every_segment),
        }
    }
}
