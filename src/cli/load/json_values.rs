//! JSON that is not NDJSON: arrays, and objects that span lines. Each item becomes a line of NDJSON.

use std::io::{self, BufRead};

use super::batch::{Batcher, MAX_LINE, Stopped};
use super::position::Position;
use super::times::Times;
use crate::cli::Failure;

/// Passes each item of `input`: its top-level values, and the elements of its top-level arrays. Whether an item is
/// valid JSON is left to the service.
pub(super) fn pass(
    input: &mut impl BufRead,
    times: &Times,
    position: &Position,
    batcher: &mut Batcher,
) -> Result<(), Stopped> {
    let mut splitter = Splitter::default();
    loop {
        let buffer = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let text = format!("line {}: {error}", splitter.line);
                return Err(batcher.fail(position.get(), Failure::failed(text)));
            }
            Ok(buffer) => buffer,
        };
        if buffer.is_empty() {
            break;
        }
        let length = buffer.len();
        for byte in buffer {
            if splitter.take(*byte) {
                splitter.hand_over(times, position, batcher)?;
            }
        }
        input.consume(length);
    }
    if splitter.ends_item() {
        splitter.hand_over(times, position, batcher)?;
    }
    match splitter.unfinished() {
        Some(what) => Err(batcher.fail(position.get(), Failure::failed(what))),
        None => batcher.flush(position.get()),
    }
}

/// Splits the input into items, byte by byte.
struct Splitter {
    /// The current line, from 1.
    line: u64,
    /// The line on which the open array began.
    array: Option<u64>,
    item: Vec<u8>,
    /// The line on which the open item began.
    began: Option<u64>,
    is_too_long: bool,
    /// The number of open braces and brackets within the item.
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            line: 1,
            array: None,
            item: Vec::new(),
            began: None,
            is_too_long: false,
            depth: 0,
            in_string: false,
            escaped: false,
        }
    }
}

impl Splitter {
    /// Processes the next byte. Returns true if it completes an item.
    fn take(&mut self, byte: u8) -> bool {
        let is_whole = match self.began {
            None => {
                self.between(byte);
                false
            }
            Some(_) => self.within(byte),
        };
        if byte == b'\n' {
            self.line += 1;
        }
        is_whole
    }

    fn between(&mut self, byte: u8) {
        match byte {
            // The last three are the bytes of a byte order mark, which concatenated files contain.
            b' ' | b'\t' | b'\r' | b'\n' | b',' | 0xef | 0xbb | 0xbf => {}
            b'[' if self.array.is_none() => self.array = Some(self.line),
            b']' if self.array.is_some() => self.array = None,
            _ => {
                self.began = Some(self.line);
                self.within(byte);
            }
        }
    }

    fn within(&mut self, byte: u8) -> bool {
        if self.in_string {
            // A line feed in a string is invalid JSON, but would split the NDJSON line. A carriage return is as invalid.
            self.push(if byte == b'\n' { b'\r' } else { byte });
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        let is_plain = self.depth == 0;
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if is_plain => {
                // The end of the array after a number or a word, or an unmatched bracket, which the service rejects.
                if byte == b']' && self.array.take().is_some() {
                    return true;
                }
                self.push(byte);
                return true;
            }
            b'}' | b']' => {
                self.depth -= 1;
                self.push(byte);
                return self.depth == 0;
            }
            b',' | b'\n' if is_plain => return true,
            _ => {}
        }
        self.push(if byte == b'\n' { b' ' } else { byte });
        false
    }

    fn push(&mut self, byte: u8) {
        if self.item.len() == MAX_LINE {
            self.is_too_long = true;
        }
        if !self.is_too_long {
            self.item.push(byte);
        }
    }

    /// Whether the end of the input completes the open item, which is then a number or a word.
    fn ends_item(&self) -> bool {
        self.began.is_some() && self.depth == 0 && !self.in_string
    }

    fn unfinished(&self) -> Option<String> {
        let cut = "the file is cut off, or is not JSON";
        match (self.began, self.array) {
            (Some(line), _) => Some(format!(
                "the item that begins in line {line} does not end: {cut}"
            )),
            (None, Some(line)) => Some(format!(
                "the array that begins in line {line} does not end: {cut}"
            )),
            (None, None) => None,
        }
    }

    fn hand_over(
        &mut self,
        times: &Times,
        position: &Position,
        batcher: &mut Batcher,
    ) -> Result<(), Stopped> {
        let line = self.began.take().unwrap_or(self.line);
        let result = match self.is_too_long {
            true => {
                let message = format!("the item has more than {MAX_LINE} bytes");
                batcher.refuse(line, message, None, position.get())
            }
            false => batcher.add_json(line, self.item.trim_ascii(), times, position.get()),
        };
        self.item.clear();
        self.is_too_long = false;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::load::batch::Piece;

    /// The lines from a string, the line on which each item began, and the failure.
    fn split(text: &str) -> (Vec<String>, Vec<u64>, Option<String>) {
        let (to, mut from) = tokio::sync::mpsc::channel(64);
        let mut batcher = Batcher::new(to, 1_000);
        let mut pieces = io::BufReader::with_capacity(3, text.as_bytes());
        let _ = pass(
            &mut pieces,
            &Times::default(),
            &Position::default(),
            &mut batcher,
        );
        drop(batcher);
        let (mut bodies, mut lines, mut failure) = (Vec::new(), Vec::new(), None);
        while let Ok(piece) = from.try_recv() {
            match piece {
                Piece::Batch(batch) => {
                    let body = String::from_utf8(batch.body.to_vec()).unwrap();
                    bodies.extend(body.lines().map(str::to_owned));
                    lines.extend(batch.lines);
                    lines.extend(batch.refused.iter().map(|refused| refused.line));
                }
                Piece::Failed(Failure::Failed(text) | Failure::Usage(text)) => failure = Some(text),
                Piece::Input(..) | Piece::Warning(_) => {}
            }
        }
        (bodies, lines, failure)
    }

    #[test]
    fn arrays_and_objects_over_lines_become_lines() {
        let right = [r#"{"a":"x, ]\"}"}"#, r#"{"b":[1,{"c":2}]}"#];
        for text in [
            format!("[{},{}]", right[0], right[1]),
            format!("\u{feff} [ {} ,\r\n{} ]\n", right[0], right[1]),
            format!("{}\n\n{}", right[0], right[1]),
            format!("[{}]\n[{}]\n", right[0], right[1]),
            format!("{},\n{},\n", right[0], right[1]),
        ] {
            let (bodies, _, failure) = split(&text);
            assert_eq!(
                (bodies.as_slice(), failure),
                (&right.map(str::to_owned)[..], None),
                "{text}"
            );
        }
        let (bodies, lines, failure) = split("[\n{\n \"a\": 1\n},\n {}\n]\n{\"b\":\n2}");
        assert_eq!(bodies, ["{  \"a\": 1 }", "{}", "{\"b\": 2}"]);
        assert_eq!((lines, failure), (vec![2, 5, 7], None));
        assert_eq!(split("[]").0, Vec::<String>::new());
    }

    #[test]
    fn what_is_no_object_is_left_to_the_service() {
        let (bodies, _, failure) = split("[7, true, \"x\", [1, 2], {} ]");
        assert_eq!(bodies, ["7", "true", "\"x\"", "[1, 2]", "{}"]);
        assert_eq!(failure, None);
        assert_eq!(split("{}}\n{}").0, ["{}", "}", "{}"]);
        assert_eq!(split("[nonsense]").0, ["nonsense"]);
        assert_eq!(split("[{\"a\":\"x\ny\"}]").0, ["{\"a\":\"x\ry\"}"]);
    }

    #[test]
    fn a_file_that_was_cut_off_is_told_with_the_line() {
        for (text, whole, part) in [
            ("[{},\n{\"a\":1", 1, "the item that begins in line 2"),
            ("[{},{}\n", 2, "the array that begins in line 1"),
            ("{}\n{\"a", 1, "the item that begins in line 2"),
        ] {
            let (bodies, _, failure) = split(text);
            assert_eq!(bodies.len(), whole, "{text}");
            assert!(
                failure.is_some_and(|failure| failure.contains(part)),
                "{text}"
            );
        }
    }

    #[test]
    fn an_item_without_end_does_not_fill_the_memory() {
        let long = format!("[{{\"a\":\"{}\"}},{{}}]", "x".repeat(MAX_LINE));
        let (bodies, lines, failure) = split(&long);
        assert_eq!(
            (bodies, lines, failure),
            (vec!["{}".to_owned()], vec![1, 1], None)
        );
    }
}
