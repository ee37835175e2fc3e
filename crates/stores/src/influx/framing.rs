//! The form of an annotated CSV answer, byte by byte.
//!
//! HTTP's own framing shows most cuts of an answer. It can't show those of a proxy that ends a cut body properly, or
//! of framing by the end of the connection, and CSV readers are lenient: a quote that is never closed makes one field
//! of all rows behind it. So the form is checked as the server writes it (RFC 4180 to the letter): records end in
//! `\r\n`; tables are annotations, a header, rows and an empty line; an answer without tables is an empty line alone.

/// Checks bytes as they come.
#[derive(Debug)]
pub(super) struct Framing {
    field: Field,
    /// Whether the next byte is the first of a record.
    fresh: bool,
    line: Line,
    wrong: Option<&'static str>,
}

/// Where in a field the last byte was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Start,
    Bare,
    Quoted,
    /// Behind a quote that ends the field, unless another follows.
    Closed,
    /// Behind the first byte of a record's end.
    Return,
}

/// What the last record was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    None,
    Annotation,
    Header,
    Row,
    /// The empty line behind a table.
    Blank,
    /// An empty line that is the whole answer.
    Alone,
}

impl Framing {
    /// The form of an answer of which nothing has come.
    pub(super) fn new() -> Self {
        Self {
            field: Field::Start,
            fresh: true,
            line: Line::None,
            wrong: None,
        }
    }

    /// Takes the next bytes, and returns how many of them there are up to the end of the last whole record.
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

    /// What is wrong with an answer that ends here.
    pub(super) fn end(&self) -> Result<(), &'static str> {
        match (self.wrong, self.line) {
            (Some(wrong), _) => Err(wrong),
            (None, Line::Blank | Line::Alone) if self.fresh => Ok(()),
            (None, Line::Header) if self.fresh => Err("it has a header and no rows"),
            _ => Err("it has no proper end"),
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
            (Field::Return, _) => return Err("a line that ends in half"),
            (Field::Quoted, b'"') => Field::Closed,
            (Field::Quoted, _) | (Field::Start | Field::Closed, b'"') => Field::Quoted,
            (_, b',') => Field::Start,
            (_, b'\r') => Field::Return,
            (_, b'\n' | b'"') | (Field::Closed, _) => {
                return Err("a field with a quote or a line end where none belongs");
            }
            (Field::Start | Field::Bare, _) => Field::Bare,
        };
        Ok(())
    }
}

impl Line {
    /// What a record is that begins with `first` and follows this one.
    fn next(self, first: u8) -> Result<Self, &'static str> {
        match (self, first) {
            (Self::Alone, _) => Err("something behind an empty answer"),
            (Self::None | Self::Blank | Self::Annotation, b'#') => Ok(Self::Annotation),
            (_, b'#') => Err("an annotation within a table"),
            (Self::None, b'\r') => Ok(Self::Alone),
            (Self::Row, b'\r') => Ok(Self::Blank),
            (Self::Header, b'\r') => Err("it has a header and no rows"),
            (_, b'\r') => Err("an empty line within a table"),
            // The first column holds annotations alone.
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
        // However the pieces come.
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
