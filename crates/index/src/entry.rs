//! An entry of the index: 48 bits of the user's fingerprint and 16 bits of the slot.

use std::fmt;

use domain::{FingerprintKey, Slot, UserId};

/// The number of bits of a user's hash that the index stores.
pub const FINGERPRINT_BITS: u32 = 48;

/// The top 48 bits of a keyed 64-bit hash of a user id.
///
/// `Debug` hides the value, because it identifies a user within one data directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The least fingerprint: the start of a walk over pages.
    pub const MIN: Self = Self(0);

    /// The fingerprint of a user whose id has this hash. The hash must be uniform and keyed.
    pub fn new(hash: u64) -> Self {
        Self(hash >> (u64::BITS - FINGERPRINT_BITS))
    }

    /// The fingerprint of a user under `key`.
    pub fn of(user: &UserId<'_>, key: FingerprintKey) -> Self {
        Self::new(key.hash(user))
    }

    /// The fingerprint as a number below 2^48.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The fingerprint that is this number below 2^48; higher bits are dropped.
    pub fn from_number(number: u64) -> Self {
        Self(number & ((1 << FINGERPRINT_BITS) - 1))
    }

    /// The bits of the hash in their original position, the lowest 16 zero. This is also the least entry of the
    /// fingerprint.
    pub(super) fn aligned(self) -> u64 {
        self.0 << (u64::BITS - FINGERPRINT_BITS)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}

/// A fingerprint and the low 16 bits of a slot in one word; ordered by fingerprint first.
///
/// A base determines the slot that the 16 bits mean: the latest slot at or before the base that ends in these bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Entry(u64);

impl Entry {
    /// Creates the entry of a user seen in `slot`.
    pub fn new(fingerprint: Fingerprint, slot: Slot) -> Self {
        Self(fingerprint.aligned() | (slot.number() & 0xffff))
    }

    /// The user's fingerprint.
    pub fn fingerprint(self) -> Fingerprint {
        Fingerprint(self.0 >> (u64::BITS - FINGERPRINT_BITS))
    }

    /// The low 16 bits of the slot.
    pub(crate) fn slot16(self) -> u16 {
        self.0 as u16
    }

    /// The slot, given a base at or after it and less than 65,536 slots later.
    pub fn slot(self, base: Slot) -> Slot {
        let age = (base.number() as u16).wrapping_sub(self.slot16());
        Slot::new(base.number().saturating_sub(u64::from(age)))
    }

    /// The entry as a word, for files.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The inverse of [`to_bits`](Self::to_bits).
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry(.., {})", self.slot16())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks() {
        let fingerprint = Fingerprint::new(0x0123_4567_89ab_cdef);
        assert_eq!(fingerprint.number(), 0x0123_4567_89ab);
        let entry = Entry::new(fingerprint, Slot::new(0x3_fffe));
        assert_eq!(entry.fingerprint(), fingerprint);
        assert_eq!(entry.slot16(), 0xfffe);
        assert_eq!(entry.slot(Slot::new(0x4_0001)), Slot::new(0x3_fffe));
        assert_eq!(entry.slot(Slot::new(0x3_fffe)), Slot::new(0x3_fffe));
        assert_eq!(Entry::from_bits(entry.to_bits()), entry);
    }
}
