//! The parser: one function for each level of precedence. Its recursion is as deep as the expression, which is limited.

use super::invalid::{InvalidExpression, Problem};
use super::token::{Operator, Token, Tokens};
use super::{MAX_BYTES, MAX_DEPTH, MAX_NAMES, Set};
use crate::Segment;

type Parsed = Result<Set, InvalidExpression>;

/// The characters that people take for quotes, or that programs put in their place.
const OTHER_QUOTES: [char; 9] = ['\'', '`', '‘', '’', '‚', '“', '”', '„', '«'];

pub(super) fn parse(text: &str) -> Parsed {
    if text.len() > MAX_BYTES {
        return Err(too_long(text, text));
    }
    let mut tokens = Tokens::new(text);
    let (token, position) = tokens.next()?;
    let mut parser = Parser {
        tokens,
        token,
        position,
        names: 0,
    };
    let set = parser.any_of(Before::Start, 0)?;
    if parser.token == Token::Close {
        return Err(Problem::UnopenedParenthesis.at(parser.position));
    }
    // The canonical form may be longer, as it writes AND before NOT. It must be valid as well.
    let canonical = set.to_string();
    if canonical.len() > MAX_BYTES {
        return Err(too_long(text, &canonical));
    }
    Ok(set)
}

/// The position is the first character that is too many, or the end.
fn too_long(text: &str, measured: &str) -> InvalidExpression {
    let allowed = text
        .char_indices()
        .take_while(|(at, char)| at + char.len_utf8() <= MAX_BYTES);
    Problem::TooLong(measured.len()).at(allowed.count() + 1)
}

/// What precedes an operand, and its position.
#[derive(Debug, Clone, Copy)]
enum Before {
    Start,
    Open(usize),
    Operator(Operator, usize),
}

#[derive(Debug)]
struct Parser<'a> {
    tokens: Tokens<'a>,
    /// The token that is looked at, and its position.
    token: Token,
    position: usize,
    /// The number of names so far.
    names: usize,
}

impl Parser<'_> {
    /// Operands of OR.
    fn any_of(&mut self, mut before: Before, depth: usize) -> Parsed {
        let mut sets = Vec::new();
        loop {
            match self.all_of(before, depth)? {
                Set::Or(inner) => sets.extend(inner),
                set => sets.push(set),
            }
            if self.token != Token::Operator(Operator::Or) {
                return Ok(single(sets, Set::Or));
            }
            before = Before::Operator(Operator::Or, self.position);
            self.advance()?;
        }
    }

    /// Operands of AND. A NOT after an operand means AND NOT.
    fn all_of(&mut self, mut before: Before, depth: usize) -> Parsed {
        let mut sets = Vec::new();
        loop {
            let set = self.operand(before, depth)?;
            let last = match &set {
                Set::Segment(segment) => Some(segment.clone()),
                _ => None,
            };
            match set {
                Set::And(inner) => sets.extend(inner),
                set => sets.push(set),
            }
            match &self.token {
                Token::Operator(Operator::And) => {
                    before = Before::Operator(Operator::And, self.position);
                    self.advance()?;
                }
                Token::Operator(Operator::Not) => {}
                Token::Operator(Operator::Or) | Token::Close | Token::End => {
                    return Ok(single(sets, Set::And));
                }
                token => return Err(no_operator(last, token).at(self.position)),
            }
        }
    }

    /// A name, `*`, parentheses, or one of them after NOT.
    fn operand(&mut self, before: Before, depth: usize) -> Parsed {
        let position = self.position;
        match self.token.clone() {
            Token::Name(segment) => {
                self.names += 1;
                if self.names > MAX_NAMES {
                    return Err(Problem::TooManyNames.at(position));
                }
                self.advance()?;
                Ok(Set::Segment(segment))
            }
            Token::Everybody => {
                self.advance()?;
                Ok(Set::Everybody)
            }
            Token::Operator(Operator::Not) => {
                let depth = self.deeper(depth)?;
                self.advance()?;
                let set = self.operand(Before::Operator(Operator::Not, position), depth)?;
                Ok(Set::Not(Box::new(set)))
            }
            Token::Open => {
                let depth = self.deeper(depth)?;
                self.advance()?;
                let set = self.any_of(Before::Open(position), depth)?;
                if self.token != Token::Close {
                    return Err(Problem::UnclosedParenthesis.at(position));
                }
                self.advance()?;
                Ok(set)
            }
            Token::Operator(operator) => Err(misplaced(operator, before).at(position)),
            token @ (Token::Close | Token::End) => Err(no_operand(&token, before, position)),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, InvalidExpression> {
        if depth >= MAX_DEPTH {
            return Err(Problem::TooDeep.at(self.position));
        }
        Ok(depth + 1)
    }

    fn advance(&mut self) -> Result<(), InvalidExpression> {
        (self.token, self.position) = self.tokens.next()?;
        Ok(())
    }
}

/// The only set, or all of them combined.
fn single(mut sets: Vec<Set>, combine: fn(Vec<Set>) -> Set) -> Set {
    match sets.pop() {
        Some(only) if sets.is_empty() => only,
        Some(last) => {
            sets.push(last);
            combine(sets)
        }
        None => combine(sets),
    }
}

/// `token` begins another operand.
fn no_operator(left: Option<Segment>, token: &Token) -> Problem {
    let (Some(left), Token::Name(right)) = (left, token) else {
        return Problem::NoOperator;
    };
    let first = left.as_str().chars().next();
    match first.filter(|char| OTHER_QUOTES.contains(char)) {
        Some(quote) => Problem::WrongQuotes(quote),
        None => Problem::SideBySide {
            left,
            right: right.clone(),
        },
    }
}

/// AND or OR stands where an operand must be.
fn misplaced(operator: Operator, before: Before) -> Problem {
    match before {
        Before::Operator(first, _) => Problem::TwoOperators {
            first,
            second: operator,
        },
        Before::Start | Before::Open(_) => Problem::NoLeftSide(operator),
    }
}

/// The expression ends, or a parenthesis closes, where an operand must be.
fn no_operand(token: &Token, before: Before, position: usize) -> InvalidExpression {
    match before {
        Before::Operator(operator, at) => Problem::NoRightSide(operator).at(at),
        Before::Open(at) if *token == Token::End => Problem::UnclosedParenthesis.at(at),
        Before::Open(at) => Problem::EmptyParentheses.at(at),
        Before::Start if *token == Token::End => Problem::Empty.at(1),
        Before::Start => Problem::UnopenedParenthesis.at(position),
    }
}
