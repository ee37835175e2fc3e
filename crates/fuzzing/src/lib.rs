//! What the fuzz targets share: inputs that are nearly right. `docs/fuzzing.md` says how they are run.

use bolero::TypeGenerator;

/// Turns bytes into a text that has much of what `words` lists: from 128 on a byte is a word, and below it is
/// itself. 255 makes the byte after it literal, so that every text can be reached.
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

/// What happens to a file or a message that was right. Places are taken modulo its length.
#[derive(Debug, Clone, TypeGenerator)]
#[expect(missing_docs, reason = "each variant says what its fields are")]
pub enum Edit {
    /// Other bits at a place.
    Flip { at: u32, bits: u8 },
    /// Nothing from a place on.
    Cut { at: u32 },
    /// Some bytes fewer.
    Remove { at: u32, length: u8 },
    /// Some bytes more.
    Insert { at: u32, bytes: Vec<u8> },
    /// A sector of zeroes, as after a loss of power.
    Zero { at: u32, length: u16 },
    /// A part once more, elsewhere.
    Copy { from: u32, length: u16, to: u32 },
    /// Bytes at the end.
    Append { bytes: Vec<u8> },
}

/// Does all of `edits` to `bytes`.
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
