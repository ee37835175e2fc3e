//! Complete lines of line protocol and how many they are.

use std::io;
use std::ops::Range;

/// Lines, each ended by a newline. No name or value that gets here has a newline of its own.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    count: usize,
}

impl Lines {
    /// No lines, with room for `bytes` of text.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            text: Vec::with_capacity(bytes),
            count: 0,
        }
    }

    /// Appends the one line that `write` writes. Writing into memory can't fail.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        let written = write(&mut self.text);
        debug_assert!(written.is_ok() && self.text.ends_with(b"\n"));
        self.count += 1;
    }

    /// Appends all of `other`.
    pub(super) fn append(&mut self, other: &Self) {
        self.text.extend_from_slice(&other.text);
        self.count += other.count;
    }

    /// How many lines there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The text.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The text, given away.
    pub(super) fn into_text(self) -> Vec<u8> {
        self.text
    }
}

/// How many lines `text` has.
pub(super) fn count_lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// The two halves of a range of whole lines, or `None` when it has only one.
pub(super) fn halves(text: &[u8], range: &Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    let part = text.get(range.clone())?;
    let (last, before) = part.split_last()?;
    debug_assert_eq!(*last, b'\n');
    let middle = before.len() / 2;
    // The first line end at or after the middle, or else the last one before it.
    let cut = match before[middle..].iter().position(|byte| *byte == b'\n') {
        Some(after) => middle + after,
        None => before[..middle].iter().rposition(|byte| *byte == b'\n')?,
    };
    let cut = range.start + cut + 1;
    Some((range.start..cut, cut..range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_ends_at_single_lines_and_loses_none() {
        let text = b"a\nbbbbbbbbbbbbbbbbbbbb\nc\nd\n";
        let whole = 0..text.len();
        let mut ranges = vec![whole];
        let mut singles = Vec::new();
        while let Some(range) = ranges.pop() {
            match halves(text, &range) {
                Some((first, second)) => ranges.extend([second, first]),
                None => singles.push(&text[range]),
            }
        }
        assert_eq!(
            singles,
            [&b"a\n"[..], b"bbbbbbbbbbbbbbbbbbbb\n", b"c\n", b"d\n"]
        );
        assert_eq!(count_lines(text), 4);
        assert_eq!(halves(text, &(0..0)), None);
    }
}
