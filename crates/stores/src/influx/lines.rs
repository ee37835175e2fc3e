//! A buffer of complete lines in line protocol, with their number.

use std::io;
use std::ops::Range;

/// Lines, each terminated by a newline. Names and values never contain a newline.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    count: usize,
}

impl Lines {
    /// An empty buffer with capacity for `bytes`.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            text: Vec::with_capacity(bytes),
            count: 0,
        }
    }

    /// Appends the one line that `write` writes. A write to memory can't fail.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        let written = write(&mut self.text);
        debug_assert!(written.is_ok() && self.text.ends_with(b"\n"));
        self.count += 1;
    }

    /// Appends all lines of `other`.
    pub(super) fn append(&mut self, other: &Self) {
        self.text.extend_from_slice(&other.text);
        self.count += other.count;
    }

    /// The number of lines.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The lines as bytes.
    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Converts the buffer to bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.text
    }
}

/// The number of lines in `text`.
pub(super) fn count_lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// The ranges of the lines in `text`, each including its newline.
pub(super) fn line_ranges(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    text.split_inclusive(|byte| *byte == b'\n')
        .map(move |line| {
            let range = start..start + line.len();
            start = range.end;
            range
        })
}

/// The timestamp of a line in nanoseconds since 1970: the number after its last space.
pub(super) fn timestamp(line: &[u8]) -> Option<i64> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let space = line.iter().rposition(|byte| *byte == b' ')?;
    std::str::from_utf8(&line[space + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_with_their_timestamps() {
        let text = b"pair,segment=a\\ b user=\"c d\" 12\npair,segment=s user=\"u\" -7\nx y\n";
        let lines: Vec<_> = line_ranges(text).map(|range| &text[range]).collect();
        let stamps: Vec<_> = lines.iter().map(|line| timestamp(line)).collect();
        assert_eq!(stamps, [Some(12), Some(-7), None]);
        assert_eq!(lines.concat(), text);
        assert_eq!(count_lines(text), 3);
        assert_eq!(line_ranges(b"").count(), 0);
    }
}
