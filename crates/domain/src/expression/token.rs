//! Splits an expression into tokens.

use std::fmt;

use super::invalid::{InvalidExpression, Problem};
use crate::Segment;

/// An operator, as its upper-case word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// In both sets.
    And,
    /// In at least one of the sets.
    Or,
    /// Not in the set.
    Not,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Name(Segment),
    Everybody,
    Operator(Operator),
    Open,
    Close,
    End,
}

/// The rest of an expression.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    rest: &'a str,
    /// The position of `rest`, in characters from 1.
    position: usize,
}

impl Operator {
    fn word(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Not => "NOT",
        }
    }

    /// The operator that a bare word is, or looks like. Such a word is never a name.
    pub(super) fn resembling(word: &str) -> Option<Self> {
        let words = [Self::And, Self::Or, Self::Not];
        let same = |operator: &Self| word.eq_ignore_ascii_case(operator.word());
        words.into_iter().find(same).or(match word {
            "&" | "&&" => Some(Self::And),
            "|" | "||" => Some(Self::Or),
            "!" => Some(Self::Not),
            _ => None,
        })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Whether a bare word ends before `char`.
pub(super) fn ends_a_word(char: char) -> bool {
    char.is_whitespace() || matches!(char, '(' | ')' | '"')
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            position: 1,
        }
    }

    /// The next token and its position; at the end again and again [`Token::End`].
    pub(super) fn next(&mut self) -> Result<(Token, usize), InvalidExpression> {
        let blank = self.rest.len() - self.rest.trim_start().len();
        self.take(blank);
        let position = self.position;
        let token = match self.rest.chars().next() {
            None => Token::End,
            Some('(') => self.sign(Token::Open),
            Some(')') => self.sign(Token::Close),
            Some('"') => self.quoted()?,
            Some(_) => self.bare()?,
        };
        Ok((token, position))
    }

    fn sign(&mut self, token: Token) -> Token {
        self.take(1);
        token
    }

    fn bare(&mut self) -> Result<Token, InvalidExpression> {
        let position = self.position;
        let end = self.rest.find(ends_a_word).unwrap_or(self.rest.len());
        let word = self.take(end);
        if word == "*" {
            return Ok(Token::Everybody);
        }
        match Operator::resembling(word) {
            Some(operator) if word == operator.word() => Ok(Token::Operator(operator)),
            Some(operator) => Err(not_an_operator(word, operator).at(position)),
            None => name(word, position),
        }
    }

    fn quoted(&mut self) -> Result<Token, InvalidExpression> {
        let opened = self.position;
        let unclosed = || Problem::UnclosedQuote.at(opened);
        self.take(1);
        let mut text = String::new();
        loop {
            let char = self.rest.chars().next().ok_or_else(unclosed)?;
            let position = self.position;
            self.take(char.len_utf8());
            match char {
                '"' => return name(&text, opened),
                '\\' => match self.rest.chars().next().ok_or_else(unclosed)? {
                    escaped @ ('"' | '\\') => {
                        self.take(1);
                        text.push(escaped);
                    }
                    _ => return Err(Problem::UnknownEscape.at(position)),
                },
                char => text.push(char),
            }
        }
    }

    /// Takes this many bytes, which end at a character boundary.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.position += taken.chars().count();
        taken
    }
}

fn name(text: &str, position: usize) -> Result<Token, InvalidExpression> {
    match Segment::new(text) {
        Ok(segment) => Ok(Token::Name(segment)),
        Err(invalid) => Err(Problem::InvalidName(invalid).at(position)),
    }
}

fn not_an_operator(word: &str, meant: Operator) -> Problem {
    let found = word.into();
    if word.eq_ignore_ascii_case(meant.word()) {
        Problem::OperatorCase { found, meant }
    } else {
        Problem::OperatorSign { found, meant }
    }
}
