//! Detects an unclosed quote at the end of a table. An unclosed quote makes one field of the rest of the input, and the CSV
//! reader returns that field as if it were complete. A mark appended to the input shows whether this happened.

use std::cell::Cell;
use std::io::{self, Read};

use csv::ByteRecord;

/// Appended to the input as a line of its own. No valid table contains it, since names have no control characters.
const MARK: &[u8] = b"\n\x00the end of the table\x00\n";

/// How the input ends, known once it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It ends with a line end, or is empty.
    Whole,
    /// The last line has no line end. A truncated file ends like this, but so do many complete ones.
    Unended,
}

/// A reader of `input` followed by the mark.
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

/// Where a row is relative to the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Before,
    /// The row is the mark: the table has ended.
    End,
    /// The mark is within a field of the row: its quote is never closed.
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

    /// The places of all rows of a table, including its header, and how the table ends.
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
