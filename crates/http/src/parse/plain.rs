//! The fast path for items in their plainest form, several times as fast as a JSON parser.
//!
//! It accepts an object of `user_id`, `segment` and `at`, each at most once, with strings without escapes and whole
//! numbers. Everything else is left to the JSON parser. For every item that is accepted here, the JSON parser must return
//! the same result, which a property test checks.

use super::instant::parse_rfc3339;
use domain::Timestamp;

/// An item in its plainest form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain<'a> {
    pub(super) user_id: &'a str,
    pub(super) segment: &'a str,
    pub(super) at: Option<Timestamp>,
}

/// Parses `text`; `None` leaves it to the JSON parser.
pub(super) fn read(text: &str) -> Option<Plain<'_>> {
    let mut rest = Rest(text);
    let (mut user_id, mut segment, mut at) = (None, None, None);
    rest.expect(b'{')?;
    loop {
        let key = rest.string()?;
        rest.expect(b':')?;
        rest.skip_space();
        match key {
            "user_id" if user_id.is_none() => user_id = Some(rest.string_or_whole_number()?),
            "segment" if segment.is_none() => segment = Some(rest.string()?),
            "at" if at.is_none() => at = Some(rest.instant()?),
            _ => return None,
        }
        match rest.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    rest.skip_space();
    rest.0.is_empty().then_some(())?;
    Some(Plain {
        user_id: user_id?,
        segment: segment?,
        at,
    })
}

/// The rest of the input. It is only sliced next to an ASCII byte, so always at a character boundary.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip_space(&mut self) {
        let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        while self.0.as_bytes().first().is_some_and(space) {
            self.0 = &self.0[1..];
        }
    }

    /// The next byte after white space; `None` at the end of the input, or if the byte is not ASCII.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let byte = *self.0.as_bytes().first().filter(|byte| byte.is_ascii())?;
        self.0 = &self.0[1..];
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// A string without escapes. Control characters are left to the JSON parser, which refuses them.
    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..=0x1f);
        let end = self.0.as_bytes().iter().position(special)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest;
        self.expect(b'"')?;
        Some(text)
    }

    fn whole_number(&mut self) -> Option<&'a str> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.0.split_at(digits);
        // No sign, no leading zero, no fraction and no exponent.
        if number.is_empty() || number.starts_with('0') || rest.starts_with(['.', 'e', 'E']) {
            return None;
        }
        self.0 = rest;
        Some(number)
    }

    fn string_or_whole_number(&mut self) -> Option<&'a str> {
        if self.0.starts_with('"') {
            self.string()
        } else {
            self.whole_number()
        }
    }

    fn instant(&mut self) -> Option<Timestamp> {
        if self.0.starts_with('"') {
            return parse_rfc3339(self.string()?);
        }
        let seconds = self.whole_number()?.parse().ok()?;
        Timestamp::from_second(seconds).ok()
    }
}
