//! Decodes UTF-16, which spreadsheets and Windows write, to UTF-8.

use std::io::{self, Read};

use super::content::ByteOrder;

const CHUNK: usize = 16 << 10;

/// Decodes UTF-16 to UTF-8. Invalid UTF-16 is an error, since a replacement character would change an id.
pub(super) struct Utf16<R> {
    input: R,
    order: ByteOrder,
    /// The bytes of an incomplete character.
    rest: Vec<u8>,
    text: Vec<u8>,
    given: usize,
}

impl<R: Read> Utf16<R> {
    pub(super) fn new(input: R, order: ByteOrder) -> Self {
        Self {
            input,
            order,
            rest: Vec::new(),
            text: Vec::new(),
            given: 0,
        }
    }

    /// Reads until `text` is not empty. At the end of the input it stays empty.
    fn refill(&mut self) -> io::Result<()> {
        self.given = 0;
        self.text.clear();
        let mut chunk = [0; CHUNK];
        while self.text.is_empty() {
            let read = self.input.read(&mut chunk)?;
            self.rest.extend_from_slice(&chunk[..read]);
            let units: Vec<u16> = self
                .rest
                .as_chunks::<2>()
                .0
                .iter()
                .map(|pair| match self.order {
                    ByteOrder::Big => u16::from_be_bytes(*pair),
                    ByteOrder::Little => u16::from_le_bytes(*pair),
                })
                .collect();
            let is_cut = |unit: &u16| (0xd800..0xdc00).contains(unit);
            let waits = read > 0 && units.last().is_some_and(is_cut);
            let whole = units.len() - usize::from(waits);
            let text: Result<String, _> =
                char::decode_utf16(units[..whole].iter().copied()).collect();
            self.text = text
                .map_err(|_| invalid("half a surrogate pair in UTF-16"))?
                .into_bytes();
            self.rest.drain(..whole * 2);
            if read == 0 {
                return match self.rest.is_empty() {
                    true => Ok(()),
                    false => Err(invalid("UTF-16 that ends within a character")),
                };
            }
        }
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.text.len() {
            self.refill()?;
        }
        let left = &self.text[self.given..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte per read.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = into.len().min(1);
            self.0.read(&mut into[..most])
        }
    }

    fn read(bytes: &[u8], order: ByteOrder) -> io::Result<String> {
        let mut text = String::new();
        Utf16::new(Slowly(bytes), order).read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn both_orders_are_read_however_they_come() {
        let text = "user_id,segment\nЮля,🏀 ball\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(read(&little, ByteOrder::Little).unwrap(), text);
        assert_eq!(read(&big, ByteOrder::Big).unwrap(), text);
        let mut whole = String::new();
        let mut reader = Utf16::new(&*little, ByteOrder::Little);
        reader.read_to_string(&mut whole).unwrap();
        assert_eq!(whole, text);
        assert_eq!(read(b"", ByteOrder::Big).unwrap(), "");
    }

    #[test]
    fn what_is_cut_is_an_error() {
        assert!(read(b"a\0b", ByteOrder::Little).is_err());
        assert!(read(b"\x3d\xd8", ByteOrder::Little).is_err());
        assert!(read(b"\x3d\xd8a\0", ByteOrder::Little).is_err());
    }
}
