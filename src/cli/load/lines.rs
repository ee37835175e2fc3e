//! NDJSON: the lines of an input, passed through unchanged.

use std::io::{self, BufRead};

use super::batch::{Batcher, MAX_LINE, Stopped};
use super::position::Position;
use super::times::Times;
use crate::cli::Failure;

/// Passes each line of `input` that is not blank.
pub(super) fn pass(
    input: &mut impl BufRead,
    times: &Times,
    position: &Position,
    batcher: &mut Batcher,
) -> Result<(), Stopped> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        match read_line(input, &mut line) {
            Ok(Line::End) => break,
            Ok(Line::TooLong) => {
                let message = format!("the line has more than {MAX_LINE} bytes");
                batcher.refuse(number, message, None, position.get())?;
            }
            Ok(Line::Whole) => {
                let text = without_marks(&line);
                if !text.is_empty() {
                    batcher.add_json(number, text, times, position.get())?;
                }
            }
            Err(error) => {
                return Err(batcher.fail(
                    position.get(),
                    Failure::failed(format!("line {number}: {error}")),
                ));
            }
        }
    }
    batcher.flush(position.get())
}

/// The line without surrounding white space and without leading byte order marks, which concatenated files have in the
/// middle. A mark is never sent, since its meaning would depend on whether a request begins with it.
fn without_marks(line: &[u8]) -> &[u8] {
    let mut text = line.trim_ascii();
    while let Some(rest) = text.strip_prefix(b"\xef\xbb\xbf") {
        text = rest.trim_ascii();
    }
    text
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads up to the next line feed. A line that is too long is skipped.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    let mut seen_any = false;
    let mut too_long = false;
    loop {
        let buffer = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() && !seen_any {
            return Ok(Line::End);
        }
        seen_any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        too_long |= line.len() + part.len() > MAX_LINE;
        match too_long {
            true => line.clear(),
            false => line.extend_from_slice(part),
        }
        let at_end = buffer.is_empty();
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() || at_end {
            return Ok(if too_long { Line::TooLong } else { Line::Whole });
        }
    }
}
