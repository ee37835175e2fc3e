//! The canonical form of an expression.

use std::fmt;

use super::token::{Operator, ends_a_word};
use super::{Expression, Set};

/// How tight the operator of a set binds. An operand that binds less than its operator needs parentheses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Or,
    And,
    Not,
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.set(), f)
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => Name(segment.as_str()).fmt(f),
            Self::Everybody => f.write_str("*"),
            Self::Not(set) => {
                write!(f, "{} ", Operator::Not)?;
                print_operand(set, Binding::Not, f)
            }
            Self::And(sets) => print_list(sets, Operator::And, Binding::And, f),
            Self::Or(sets) => print_list(sets, Operator::Or, Binding::Or, f),
        }
    }
}

fn print_list(
    sets: &[Set],
    operator: Operator,
    binding: Binding,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    for (number, set) in sets.iter().enumerate() {
        if number > 0 {
            write!(f, " {operator} ")?;
        }
        print_operand(set, binding, f)?;
    }
    Ok(())
}

fn print_operand(set: &Set, binding: Binding, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let own = match set {
        Set::Segment(_) | Set::Everybody | Set::Not(_) => Binding::Not,
        Set::And(_) => Binding::And,
        Set::Or(_) => Binding::Or,
    };
    if own < binding {
        write!(f, "({set})")
    } else {
        fmt::Display::fmt(set, f)
    }
}

/// A segment's name, in quotes where an expression needs them.
#[derive(Debug)]
pub(super) struct Name<'a>(pub(super) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0;
        let is_special = name == "*" || Operator::resembling(name).is_some();
        if !is_special && !name.contains(ends_a_word) {
            return f.write_str(name);
        }
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        write!(f, "\"{escaped}\"")
    }
}
