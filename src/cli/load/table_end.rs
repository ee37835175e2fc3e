//! The end of a table, made visible. A quote that is left open takes everything behind it into one field, and the reader
//! of tables returns that field as if it were whole.

use std::cell::Cell;
use std::io::{self, Read};

use csv::ByteRecord;

/// Follows the input in a line of its own. No table holds it: names have no control characters.
const MARK: &[u8] = b"\n\x00the end of the table\x00\n";

/// What is known of the input's end once it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It ends with a line end, or is empty.
    Whole,
    /// Its last line has no end: a file that is cut off ends like this, and so do many that are not.
    Unended,
}

/// Passes `input` on, and the mark behind it.
pub(super) struct Marked<'a, R> {
    input: R,
    mark: &'static [u8],
    last: u8,
    ending: &'a Cell<Ending>,
}

impl<'a, R> Marked<'a, R> {
    pub(super) fn new(input: R, ending: &'a Cell<Ending>) -> Self {
        Self {
            input,
            mark: MARK,
            last: b'\n',
            ending,
        }
    }
}

impl<R: Read> Read for Marked<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(into)?;
        if let Some(last) = into[..count].last() {
            self.last = *last;
            return Ok(count);
        }
        if self.last != b'\n' && self.last != b'\r' {
            self.ending.set(Ending::Unended);
        }
        self.mark.read(into)
    }
}

/// Where a row stands to the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Before,
    /// It is the mark: the table has ended.
    End,
    /// The mark is within one of its fields, whose quote is never closed.
    Open,
}

pub(super) fn place(row: &ByteRecord) -> Place {
    let mark = MARK.trim_ascii();
    match row.iter().next_back() {
        Some(last) if last == mark => Place::End,
        Some(last) if last.trim_ascii_end().ends_with(mark) => Place::Open,
        _ => Place::Before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places of all rows of a table, its header among them, and how it ends.
    fn read(text: &str) -> (Vec<Place>, Ending) {
        let ending = Cell::new(Ending::Whole);
        let rows: Vec<_> = csv::ReaderBuilder::new()
            .flexible(true)
            .has_headers(false)
            .from_reader(Marked::new(text.as_bytes(), &ending))
            .byte_records()
            .map(|row| place(&row.unwrap()))
            .collect();
        (rows, ending.get())
    }

    #[test]
    fn the_end_is_found_behind_any_row() {
        use Place::{Before, End};
        for text in [
            "a,b\n1,2\n",
            "a,b\r\n1,2\r\n",
            "a,b\n1,\"2\n\"\n\n",
            "a\n\"\"\"\"\n",
        ] {
            assert_eq!(
                read(text),
                (vec![Before, Before, End], Ending::Whole),
                "{text:?}"
            );
        }
        assert_eq!(
            read("a,b\n1,2"),
            (vec![Before, Before, End], Ending::Unended)
        );
        assert_eq!(read(""), (vec![End], Ending::Whole));
    }

    #[test]
    fn a_quote_that_is_left_open_is_found() {
        for text in [
            "a,b\n1,\"2\n3,4\n",
            "a,b\n\"1,2\n3,4",
            "a,b\n1,\"2\"\"\n",
            "a,\"b\n1,2\n",
        ] {
            assert_eq!(read(text).0.last(), Some(&Place::Open), "{text:?}");
        }
    }
}
