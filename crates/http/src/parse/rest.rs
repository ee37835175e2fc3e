//! Reads JSON in its plainest form, several times as fast as a JSON parser.
//!
//! Every function returns `None` for what it does not read, even if it is JSON. For everything that it reads, the JSON parser must
//! return the same, which property tests check.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The deepest nesting that [`Rest::skip`] follows by recursion. The JSON parser ignores deeper values without recursion.
const DEEPEST: u8 = 16;

/// The rest of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest<'a> {
    text: &'a str,
    /// The index of its first byte, which begins a character.
    at: usize,
}

impl<'a> Rest<'a> {
    pub(super) const fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Whether nothing is left but white space.
    pub(super) fn is_blank(mut self) -> bool {
        self.peek().is_none()
    }

    /// The next byte after white space, which is skipped.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte()? {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips `byte`, which must be ASCII, after white space.
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skips(byte).then_some(())
    }

    /// Whether `byte`, which must be ASCII, is next after white space. Then it is skipped.
    fn skips(&mut self, byte: u8) -> bool {
        let is_next = self.byte() == Some(byte) || self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// An object. `member` gets the name of each member, and reads its value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a str) -> Option<()>,
    ) -> Option<()> {
        self.list([b'{', b'}'], |rest| {
            let name = rest.string()?;
            rest.expect(b':')?;
            member(rest, name)
        })
    }

    /// An array, whose elements `element` reads.
    pub(super) fn array(&mut self, element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.list([b'[', b']'], element)
    }

    fn list(
        &mut self,
        [start, end]: [u8; 2],
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.expect(start)?;
        if self.skips(end) {
            return Some(());
        }
        loop {
            item(self)?;
            if !self.skips(b',') {
                return self.expect(end);
            }
        }
    }

    /// A string without escapes. Control characters are left to the JSON parser, which refuses them.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        let end = start + length_without_special(&self.text.as_bytes()[start..]);
        self.at = end;
        // Not `expect`, which skips control characters that are white space.
        (self.byte()? == b'"').then_some(())?;
        self.at += 1;
        self.text.get(start..end)
    }

    /// The digits of an integer without a sign.
    pub(super) fn whole_number(&mut self) -> Option<&'a str> {
        self.peek()?;
        let rest = &self.text[self.at..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        // No leading zero, no fraction and no exponent.
        if number.is_empty() || number.starts_with('0') || after.starts_with(['.', 'e', 'E']) {
            return None;
        }
        self.at += digits;
        Some(number)
    }

    /// A string without escapes, or null.
    pub(super) fn string_or_null(&mut self) -> Option<Option<&'a str>> {
        if self.peek()? == b'"' {
            return self.string().map(Some);
        }
        self.text[self.at..].starts_with("null").then(|| {
            self.at += "null".len();
            None
        })
    }

    /// Whether a string is next.
    pub(super) fn is_string(&mut self) -> bool {
        self.peek() == Some(b'"')
    }

    /// Any value, by the JSON parser.
    pub(super) fn value<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let rest = &self.text[self.at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }

    /// Skips any value.
    pub(super) fn skip(&mut self) -> Option<()> {
        self.skip_within(DEEPEST)
    }

    fn skip_within(&mut self, levels: u8) -> Option<()> {
        let next = self.peek()?;
        let start = *self;
        if next == b'"' && self.string().is_some() {
            return Some(());
        }
        match (next, levels.checked_sub(1)) {
            (b'{', Some(levels)) => self.object(|rest, _| rest.skip_within(levels)),
            (b'[', Some(levels)) => self.array(|rest| rest.skip_within(levels)),
            _ => {
                *self = start;
                self.value::<IgnoredAny>().map(drop)
            }
        }
    }
}

/// The number of bytes before the first quote, backslash or control character.
fn length_without_special(bytes: &[u8]) -> usize {
    /// Each byte of a word is 1.
    const ONES: u64 = u64::MAX / 255;
    let (words, last) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A subtraction borrows into the highest bit of a byte that is below what is subtracted. Bytes above the first such byte may
        // be wrong.
        let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let special = (below(word, b' ') | is(b'"') | is(b'\\')) & (ONES << 7);
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..=0x1f);
    let length = last.iter().position(special).unwrap_or(last.len());
    bytes.len() - last.len() + length
}
