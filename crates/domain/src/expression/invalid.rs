//! The reasons why a string is not a valid expression.

use super::print::Name;
use super::token::Operator;
use super::{MAX_BYTES, MAX_DEPTH, MAX_NAMES};
use crate::{InvalidSegment, Segment};

/// The first mistake in an expression, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expression is invalid at character {position}: {problem}")]
pub struct InvalidExpression {
    /// The position in characters; the first is 1.
    pub position: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong in an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no word.
    #[error("it is empty; write a segment's name, or * for everybody in any segment")]
    Empty,
    /// The string, or its canonical form, is too long.
    #[error("it has {0} bytes; at most {MAX_BYTES} are allowed: ask in parts")]
    TooLong(usize),
    /// Too many parentheses and NOTs are open.
    #[error(
        "more than {MAX_DEPTH} parentheses and NOTs are within each other; remove those that change nothing"
    )]
    TooDeep,
    /// There are too many names.
    #[error("this is one name more than the {MAX_NAMES} allowed: ask in parts")]
    TooManyNames,
    /// A quoted name has no end.
    #[error(
        "the quote that opens here is never closed; write \" after the name, and \\\" for a quote in a name"
    )]
    UnclosedQuote,
    /// A backslash in quotes precedes another character than a quote or a backslash.
    #[error("in quotes \\ comes only before \" and \\; write \\\\ for a backslash")]
    UnknownEscape,
    /// A name is not a valid segment name.
    #[error("this name is invalid: {0}")]
    InvalidName(InvalidSegment),
    /// A word looks like an operator.
    #[error(
        "{found} is not an operator; write {meant} in capitals, or \"{found}\" in quotes for a segment of that name"
    )]
    OperatorCase {
        /// The word in the expression.
        found: Box<str>,
        /// The operator that it looks like.
        meant: Operator,
    },
    /// A sign looks like an operator.
    #[error(
        "{found} is not an operator; write {meant}, or put the whole name in quotes if {found} belongs to it"
    )]
    OperatorSign {
        /// The sign in the expression.
        found: Box<str>,
        /// The operator that it looks like.
        meant: Operator,
    },
    /// Two names follow each other.
    #[error(
        "no operator between {left} and {right}; write {left} AND {right}, {left} OR {right}, or one name in quotes, \
         as in \"front page\"",
        left = Name(left.as_str()),
        right = Name(right.as_str())
    )]
    SideBySide {
        /// The name before this position.
        left: Segment,
        /// The name at this position.
        right: Segment,
    },
    /// Two names follow each other, and the first begins with a quote other than the double quote.
    #[error("names with blanks go in double quotes (\"...\"), not in {0}")]
    WrongQuotes(char),
    /// Two operands follow each other, not both of them names.
    #[error("an operator is missing before this; write AND, OR or NOT")]
    NoOperator,
    /// An operator begins the expression or a parenthesis.
    #[error(
        "{0} has nothing on its left; write a name, * or a parenthesis before it, or remove it"
    )]
    NoLeftSide(Operator),
    /// An operator ends the expression or a parenthesis.
    #[error(
        "{0} has nothing on its right; write a name, * or a parenthesis after it, or remove it"
    )]
    NoRightSide(Operator),
    /// Two operators follow each other.
    #[error("{second} follows {first} directly; remove one of them, or write a name between them")]
    TwoOperators {
        /// The operator before this position.
        first: Operator,
        /// The operator at this position.
        second: Operator,
    },
    /// Parentheses have nothing in them.
    #[error("the parentheses are empty; write a name in them, or remove them")]
    EmptyParentheses,
    /// A parenthesis is opened and not closed.
    #[error(
        "the parenthesis that opens here is never closed; write ) where it ends, or put it in quotes if it belongs to a name"
    )]
    UnclosedParenthesis,
    /// A parenthesis is closed and was not opened.
    #[error(
        "no parenthesis is open here; remove the ), or put it in quotes if it belongs to a name"
    )]
    UnopenedParenthesis,
}

impl Problem {
    pub(super) fn at(self, position: usize) -> InvalidExpression {
        InvalidExpression {
            position,
            problem: self,
        }
    }
}
