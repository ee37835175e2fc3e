//! The lines of a body, one point after another.

use std::borrow::Cow;

use memchr::memchr2;

use super::LineNames;

/// Why a line is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    /// It begins with a comma.
    #[error("the measurement is missing")]
    NoMeasurement,
    /// There is nothing but a measurement and tags.
    #[error("the fields are missing: a line is `measurement,tag=value field=value timestamp`")]
    NoFields,
    /// A tag has no name, no value, or an `=` in its value.
    #[error("a tag must be `name=value`, with a backslash before each comma, space and = in it")]
    Tag,
    /// A tag is given twice.
    #[error("the tag with the segment is given twice")]
    TagTwice,
    /// A field has no name or no value.
    #[error(
        "a field must be `name=value`, with a backslash before each comma, space and = in its name"
    )]
    Field,
    /// A string has no end.
    #[error("a string has no closing quote")]
    Unclosed,
    /// A value is no string, number or boolean.
    #[error("the value of a field must be a string in double quotes, a number or a boolean")]
    Value,
    /// What follows the fields is no integer.
    #[error("the timestamp must be an integer")]
    Time,
    /// The timestamp is no instant.
    #[error("the timestamp is out of range: is the precision right?")]
    Range,
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    /// A string, without escapes.
    Text(Cow<'a, [u8]>),
    /// The digits of an integer.
    Integer(&'a [u8]),
    /// A float or a boolean.
    Other,
}

/// A point, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point<'a> {
    /// `None` for another measurement.
    pub(super) pair: Option<RawPair<'a>>,
    /// The timestamp as it was given.
    pub(super) time: Option<i64>,
}

/// The tag and field of a pair.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct RawPair<'a> {
    pub(super) segment: Option<Cow<'a, [u8]>>,
    pub(super) user: Option<Value<'a>>,
}

/// Reads points one after another.
pub(super) struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    /// The next point. After an error the next one begins on the next line.
    pub(super) fn next(&mut self, names: &LineNames) -> Option<Result<Point<'a>, LineError>> {
        loop {
            let rest = self.body.get(self.at..)?;
            let blank = |byte: &&u8| matches!(**byte, b' ' | b'\t' | b'\r' | b'\n' | 0);
            self.at += rest.iter().take_while(blank).count();
            match self.body.get(self.at)? {
                b'#' => self.skip_line(),
                _ => break,
            }
        }
        let point = self.point(names);
        match point {
            Ok(_) => self.at += 1,
            Err(_) => self.skip_line(),
        }
        Some(point)
    }

    fn skip_line(&mut self) {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += end + 1;
    }

    /// The byte at the position; `None` at the end of the line.
    fn peek(&self) -> Option<u8> {
        match self.body.get(self.at) {
            None | Some(b'\n') => None,
            Some(b'\r') if matches!(self.body.get(self.at + 1), None | Some(b'\n')) => None,
            Some(byte) => Some(*byte),
        }
    }

    /// What precedes the next delimiter, or the end of the line. A delimiter after a backslash is none.
    fn until(&mut self, is_delimiter: impl Fn(u8) -> bool) -> &'a [u8] {
        let start = self.at;
        let mut escaped = false;
        while let Some(byte) = self.peek() {
            if !escaped && is_delimiter(byte) {
                break;
            }
            escaped = byte == b'\\';
            self.at += 1;
        }
        self.body.get(start..self.at).unwrap_or_default()
    }

    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn point(&mut self, names: &LineNames) -> Result<Point<'a>, LineError> {
        let measurement = self.until(|byte| byte == b',' || byte == b' ');
        if measurement.is_empty() {
            return Err(LineError::NoMeasurement);
        }
        let is_pair = *unescaped(measurement, b", ") == *names.measurement.as_bytes();
        let mut pair = RawPair::default();
        while self.skip(b',') {
            let (name, value) = self.tag()?;
            if is_pair && *unescaped(name, b",= ") == *names.segment.as_bytes() {
                let twice = pair.segment.replace(unescaped(value, b",= "));
                if twice.is_some() {
                    return Err(LineError::TagTwice);
                }
            }
        }
        while self.skip(b' ') {}
        if self.peek().is_none() {
            return Err(LineError::NoFields);
        }
        loop {
            let (name, value) = self.field()?;
            if is_pair && *unescaped(name, b",= ") == *names.user.as_bytes() {
                // InfluxDB keeps the last one.
                pair.user = Some(value);
            }
            if !self.skip(b',') {
                break;
            }
        }
        Ok(Point {
            pair: is_pair.then_some(pair),
            time: self.time()?,
        })
    }

    fn tag(&mut self) -> Result<(&'a [u8], &'a [u8]), LineError> {
        let name = self.until(|byte| matches!(byte, b',' | b' ' | b'='));
        if name.is_empty() || !self.skip(b'=') {
            return Err(LineError::Tag);
        }
        let value = self.until(|byte| matches!(byte, b',' | b' ' | b'='));
        match self.peek() {
            _ if value.is_empty() => Err(LineError::Tag),
            Some(b'=') => Err(LineError::Tag),
            None => Err(LineError::NoFields),
            Some(_) => Ok((name, value)),
        }
    }

    fn field(&mut self) -> Result<(&'a [u8], Value<'a>), LineError> {
        let name = self.until(|byte| matches!(byte, b',' | b' ' | b'='));
        if name.is_empty() || !self.skip(b'=') {
            return Err(LineError::Field);
        }
        let value = match self.skip(b'"') {
            true => Value::Text(self.string()?),
            false => {
                let start = self.at;
                while self.peek().is_some_and(|byte| byte != b',' && byte != b' ') {
                    self.at += 1;
                }
                plain_value(self.body.get(start..self.at).unwrap_or_default())?
            }
        };
        match self.peek() {
            None | Some(b',' | b' ') => Ok((name, value)),
            Some(_) => Err(LineError::Value),
        }
    }

    /// The rest of a string, up to its closing quote. It may contain line breaks.
    fn string(&mut self) -> Result<Cow<'a, [u8]>, LineError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let mut end = 0;
        loop {
            let next = memchr2(b'"', b'\\', rest.get(end..).unwrap_or_default());
            let next = next.ok_or(LineError::Unclosed)?;
            end += next;
            if rest.get(end) == Some(&b'"') {
                break;
            }
            end += 2;
        }
        self.at += end + 1;
        Ok(unescaped(rest.get(..end).unwrap_or_default(), b"\"\\"))
    }

    fn time(&mut self) -> Result<Option<i64>, LineError> {
        while self.skip(b' ') {}
        let start = self.at;
        while self.peek().is_some_and(|byte| byte != b' ') {
            self.at += 1;
        }
        let digits = self.body.get(start..self.at).unwrap_or_default();
        while self.skip(b' ') {}
        if digits.is_empty() {
            return Ok(None);
        }
        let is_number = is_integer(digits) && self.peek().is_none();
        let text = std::str::from_utf8(digits).ok().filter(|_| is_number);
        let time = text.ok_or(LineError::Time)?.parse();
        time.map(Some).map_err(|_| LineError::Range)
    }
}

/// A value that is not a string.
fn plain_value(text: &[u8]) -> Result<Value<'_>, LineError> {
    let as_text = || std::str::from_utf8(text).map_err(|_| LineError::Value);
    match text {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" | b"f" | b"F" | b"false" | b"False"
        | b"FALSE" => Ok(Value::Other),
        [digits @ .., b'i'] if is_integer(digits) => {
            let number = as_text()?.trim_end_matches('i').parse::<i64>();
            number.map_err(|_| LineError::Value)?;
            Ok(Value::Integer(digits))
        }
        [digits @ .., b'u'] if digits.iter().all(u8::is_ascii_digit) => {
            let number = as_text()?.trim_end_matches('u').parse::<u64>();
            number.map_err(|_| LineError::Value)?;
            Ok(Value::Integer(digits))
        }
        [first, ..] if first.is_ascii_digit() || matches!(first, b'-' | b'.') => {
            let number = as_text()?.parse::<f64>().ok();
            let is_finite = number.is_some_and(f64::is_finite);
            // Rust also takes `-inf`.
            is_finite.then_some(Value::Other).ok_or(LineError::Value)
        }
        _ => Err(LineError::Value),
    }
}

fn is_integer(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// `text` without the backslashes before `escapable` characters. Other backslashes are characters.
fn unescaped<'a>(text: &'a [u8], escapable: &[u8]) -> Cow<'a, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut bytes = text.iter().copied().peekable();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let escaped = bytes.next_if(|next| byte == b'\\' && escapable.contains(next));
        plain.push(escaped.unwrap_or(byte));
    }
    Cow::Owned(plain)
}
