//! Helpers of the fuzz targets, which generate almost valid inputs. `docs/fuzzing.md` describes how to run the targets.

use bolero::TypeGenerator;

/// Turns `input` into a string with many of `words`. A byte from 128 to 254 becomes a word, a lower byte stands for itself.
/// 255 makes the next byte literal, so that every byte string can be generated.
pub fn spell(input: &[u8], words: &[&str]) -> Vec<u8> {
    let mut text = Vec::with_capacity(input.len() * 4);
    let mut bytes = input.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            0..128 => text.push(byte),
            255 => text.extend(bytes.next()),
            _ => {
                let word = words[usize::from(byte - 128) % words.len()];
                text.extend_from_slice(word.as_bytes());
            }
        }
    }
    text
}

/// A corruption of a valid file or message. Offsets are taken modulo its length.
#[derive(Debug, Clone, TypeGenerator)]
#[expect(missing_docs, reason = "the doc of each variant covers its fields")]
pub enum Edit {
    /// Flips `bits` of the byte at `at`.
    Flip { at: u32, bits: u8 },
    /// Truncates at `at`.
    Cut { at: u32 },
    /// Removes `length` bytes from `at`.
    Remove { at: u32, length: u8 },
    /// Inserts `bytes` at `at`.
    Insert { at: u32, bytes: Vec<u8> },
    /// Zeroes `length` bytes from `at`, as a power loss may do to a sector.
    Zero { at: u32, length: u16 },
    /// Inserts a copy of the `length` bytes from `from` at `to`.
    Copy { from: u32, length: u16, to: u32 },
    /// Appends `bytes`.
    Append { bytes: Vec<u8> },
}

/// Applies `edits` to `bytes`, in order.
pub fn edit(bytes: &mut Vec<u8>, edits: &[Edit]) {
    for edit in edits {
        edit.apply(bytes);
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: u32, bytes: &Vec<u8>| at as usize % (bytes.len() + 1);
        let range = |at: u32, length: usize, bytes: &Vec<u8>| {
            let start = place(at, bytes);
            start..bytes.len().min(start + length)
        };
        match self {
            Self::Flip { at, bits } => {
                let at = place(*at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Self::Cut { at } => bytes.truncate(place(*at, bytes)),
            Self::Remove { at, length } => {
                bytes.drain(range(*at, usize::from(*length), bytes));
            }
            Self::Insert { at, bytes: more } => {
                let at = place(*at, bytes);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Zero { at, length } => {
                let range = range(*at, usize::from(*length), bytes);
                bytes[range].fill(0);
            }
            Self::Copy { from, length, to } => {
                let part = bytes[range(*from, usize::from(*length), bytes)].to_vec();
                let to = place(*to, bytes);
                bytes.splice(to..to, part);
            }
            Self::Append { bytes: more } => bytes.extend_from_slice(more),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_bytes_make_texts() {
        assert_eq!(
            spell(b"a\x80\x81b\xff\xe9\x82", &["<x>", "y"]),
            b"a<x>yb\xe9<x>"
        );
    }

    #[test]
    fn edits_stay_within_what_is_there() {
        let mut bytes = b"0123".to_vec();
        let edits = [
            Edit::Flip { at: 0, bits: 1 },
            Edit::Copy {
                from: 2,
                length: 9,
                to: 1,
            },
            Edit::Remove { at: 3, length: 1 },
            Edit::Zero { at: 4, length: 500 },
            Edit::Insert {
                at: 5,
                bytes: vec![b'x'],
            },
        ];
        edit(&mut bytes, &edits);
        assert_eq!(bytes, b"1232\0x");
        edit(&mut bytes, &[Edit::Cut { at: 9 }]);
        assert_eq!(bytes, b"12");
    }
}
