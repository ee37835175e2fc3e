//! Reads the fields of a payload one after the other.

/// Reads little-endian fields from the front of a payload. The error of each method is a message: the payload ends early,
/// or has bytes left.
#[derive(Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Starts at the front of `payload`.
    pub fn of(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    /// Reads the next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or_else(ends_early)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// Reads the next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(ends_early)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Takes all remaining bytes.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Whether no bytes are left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the next byte.
    pub fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Reads the next number of 2 bytes.
    pub fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Reads the next number of 4 bytes.
    pub fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Reads the next number of 8 bytes.
    pub fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads the next signed number of 8 bytes.
    pub fn i64(&mut self) -> Result<i64, String> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Checks that no bytes are left.
    pub fn end(&self) -> Result<(), String> {
        match self.0 {
            [] => Ok(()),
            _ => Err("bytes follow the end of the record".to_owned()),
        }
    }
}

fn ends_early() -> String {
    "the record ends early".to_owned()
}
