//! Checks the framing of an annotated CSV response, byte by byte.
//!
//! HTTP's framing detects most truncated responses. It can't detect a proxy that terminates a truncated body properly,
//! or truncation of a body that ends with the connection. CSV readers are lenient: an unclosed quote turns all rows after
//! it into one field. So this module checks the exact form that the server writes (strict RFC 4180). Records end in
//! `\r\n`. A table consists of annotations, a header, rows and an empty line. A response without tables is a single
//! empty line.

/// An incremental checker of the framing.
#[derive(Debug)]
pub(super) struct Framing {
    field: Field,
    /// Whether the next byte starts a record.
    fresh: bool,
    line: Line,
    wrong: Option<&'static str>,
}

/// The position of the last byte relative to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Start,
    Bare,
    Quoted,
    /// After a quote that ends the field, unless another quote follows.
    Closed,
    /// After the `\r` of a record's end.
    Return,
}

/// The kind of the last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    None,
    Annotation,
    Header,
    Row,
    /// The empty line after a table.
    Blank,
    /// An empty line that is the whole response.
    Alone,
}

impl Framing {
    /// The state before the first byte.
    pub(super) fn new() -> Self {
        Self {
            field: Field::Start,
            fresh: true,
            line: Line::None,
            wrong: None,
        }
    }

    /// Checks the next bytes. Returns the number of bytes up to the end of the last complete record in them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let mut whole = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if let Err(wrong) = self.step(byte) {
                self.wrong = Some(wrong);
                return Err(wrong);
            }
            if self.fresh {
                whole = at + 1;
            }
        }
        Ok(whole)
    }

    /// Checks that the response may end here.
    pub(super) fn end(&self) -> Result<(), &'static str> {
        match (self.wrong, self.line) {
            (Some(wrong), _) => Err(wrong),
            (None, Line::Blank | Line::Alone) if self.fresh => Ok(()),
            (None, Line::Header) if self.fresh => Err("it has a header and no rows"),
            _ => Err("it is incomplete"),
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        if self.fresh {
            self.line = self.line.next(byte)?;
            self.fresh = false;
        }
        self.field = match (self.field, byte) {
            (Field::Return, b'\n') => {
                self.fresh = true;
                Field::Start
            }
            (Field::Return, _) => return Err("a carriage return without a line feed"),
            (Field::Quoted, b'"') => Field::Closed,
            (Field::Quoted, _) | (Field::Start | Field::Closed, b'"') => Field::Quoted,
            (_, b',') => Field::Start,
            (_, b'\r') => Field::Return,
            (_, b'\n' | b'"') | (Field::Closed, _) => {
                return Err("a quote or a line end at an invalid position in a field");
            }
            (Field::Start | Field::Bare, _) => Field::Bare,
        };
        Ok(())
    }
}

impl Line {
    /// The kind of the next record, whose first byte is `first`.
    fn next(self, first: u8) -> Result<Self, &'static str> {
        match (self, first) {
            (Self::Alone, _) => Err("data after an empty response"),
            (Self::None | Self::Blank | Self::Annotation, b'#') => Ok(Self::Annotation),
            (_, b'#') => Err("an annotation within a table"),
            (Self::None, b'\r') => Ok(Self::Alone),
            (Self::Row, b'\r') => Ok(Self::Blank),
            (Self::Header, b'\r') => Err("it has a header and no rows"),
            (_, b'\r') => Err("an empty line within a table"),
            // Only annotations have a value in the first column.
            (_, b'"') => Err("a row that begins with a value"),
            (Self::Annotation, _) => Ok(Self::Header),
            (Self::Header | Self::Row, _) => Ok(Self::Row),
            (Self::None | Self::Blank, _) => Err("a row before any header"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "#datatype,string,long\r\n,result,_value\r\n,\"a,\"\"b\r\n\",3\r\n,c,4\r\n\r\n";

    fn check(body: &str) -> Result<(), &'static str> {
        let mut framing = Framing::new();
        // In two pieces.
        let (one, other) = body.as_bytes().split_at(body.len() / 2);
        framing.take(one)?;
        framing.take(other)?;
        framing.end()
    }

    #[test]
    fn what_the_server_writes_is_right_and_any_part_of_it_is_not() {
        assert_eq!(check(GOOD), Ok(()));
        assert_eq!(check("\r\n"), Ok(()));
        assert_eq!(check(&GOOD.repeat(2)), Ok(()));
        for end in 0..GOOD.len() {
            assert!(check(&GOOD[..end]).is_err(), "cut after {end} bytes");
        }
    }

    #[test]
    fn the_last_whole_record_ends_where_it_ends() {
        let mut framing = Framing::new();
        let header = "#datatype\r\n,_value\r\n".len();
        let cut = GOOD.find("4\r\n").unwrap() + 2;
        assert_eq!(framing.take(&GOOD.as_bytes()[..cut]), Ok(cut - 5));
        assert_eq!(framing.take(&GOOD.as_bytes()[cut..]), Ok(3));
        let mut framing = Framing::new();
        assert_eq!(
            framing.take(b"#datatype\r\n,_value\r\n,\"a\r\nb"),
            Ok(header)
        );
    }

    #[test]
    fn what_csv_readers_forgive() {
        for (from, to) in [
            (",c,4", ",\"c,4"),
            (",c,4", ",c\"d,4"),
            (",c,4", ",\"c\"d,4"),
            (",c,4", ",c\n,4"),
            (",c,4", ",c\r,4"),
            (",c,4\r\n", ",c,4\r\n\r\n,d,5\r\n"),
            (",c,4", "#c,4"),
            (",c,4", "\"#c\",4"),
            ("#datatype", "\r\n#datatype"),
        ] {
            let body = GOOD.replacen(from, to, 1);
            assert!(check(&body).is_err(), "{body}");
        }
        for body in [
            "\r\n\r\n",
            "#datatype\r\n\r\n",
            "#datatype\r\n,_value\r\n\r\n",
            "\u{feff}\r\n",
        ] {
            assert!(check(body).is_err(), "{body}");
        }
    }
}
