//! Finds the page of a fingerprint by its first bits (extendible hashing).
//!
//! The directory lists 2^depth page numbers. A page whose fingerprints share fewer than `depth` bits is
//! listed several times, at adjacent addresses. When a page with the depth of the directory splits, the directory
//! doubles, which copies a few bytes per page.

use super::entry::{FINGERPRINT_BITS, Fingerprint};

/// The directory never exceeds this size or twice the number of entries, whichever is larger. Uniform fingerprints need a
/// tenth of that. If many share their first bits, pages grow instead of splitting further.
const FREE_SIZE: usize = 1 << 16;

/// The maximum depth of the directory, which keeps every shift in range.
const MAX_DEPTH: u8 = 40;

/// Page numbers by the first bits of fingerprints.
#[derive(Debug)]
pub(super) struct Directory {
    numbers: Vec<u32>,
    depth: u8,
    /// The number of pages of each depth.
    by_depth: Vec<u32>,
}

impl Directory {
    /// Creates a directory of one page, which holds all fingerprints.
    pub(super) fn new(number: u32) -> Self {
        Self {
            numbers: vec![number],
            depth: 0,
            by_depth: vec![1],
        }
    }

    pub(super) fn bytes(&self) -> usize {
        (self.numbers.capacity() + self.by_depth.capacity()) * size_of::<u32>()
    }

    /// The number of the page that `fingerprint` belongs to.
    pub(super) fn find(&self, fingerprint: Fingerprint) -> u32 {
        self.numbers[self.address(fingerprint)]
    }

    /// Doubles the directory if a page of this depth can't split otherwise. `false` if it would become too large
    /// for `expected` entries.
    pub(super) fn grow_for_split(&mut self, depth: u8, expected: usize) -> bool {
        if depth < self.depth {
            return true;
        }
        let size = self.numbers.len() * 2;
        if self.depth >= MAX_DEPTH || size > FREE_SIZE.max(2 * expected) {
            return false;
        }
        let mut doubled = Vec::with_capacity(size);
        for number in &self.numbers {
            doubled.extend([*number, *number]);
        }
        self.numbers = doubled;
        self.depth += 1;
        true
    }

    /// Records that the page that starts at `start` moved its upper half to the page `upper`. `depth` is the depth before
    /// the split.
    pub(super) fn split(&mut self, start: Fingerprint, depth: u8, upper: u32) {
        let first = self.address(start);
        let count = self.count(depth);
        self.numbers[first + count / 2..first + count].fill(upper);
        self.change(depth, -1);
        self.change(depth + 1, 2);
    }

    /// If the page of this depth that starts at `start` is the upper half of a range of one bit less: returns the last page
    /// of the lower half, which covers all of it if it has the same depth.
    pub(super) fn lower_half(&self, start: Fingerprint, depth: u8) -> Option<u32> {
        let first = self.address(start);
        let is_upper = depth > 0 && !(first / self.count(depth)).is_multiple_of(2);
        is_upper.then(|| self.numbers[first - 1])
    }

    /// Records that the page of this depth that starts at `start` was merged into the page `lower` of the lower half.
    pub(super) fn join(&mut self, start: Fingerprint, depth: u8, lower: u32) {
        let first = self.address(start);
        let count = self.count(depth);
        self.numbers[first..first + count].fill(lower);
        self.change(depth, -2);
        self.change(depth - 1, 1);
    }

    /// Halves the directory while no page needs its last bit.
    pub(super) fn shrink(&mut self) {
        while self.depth > 0 && self.pages_of(self.depth) == 0 {
            self.numbers = self.numbers.iter().step_by(2).copied().collect();
            self.depth -= 1;
        }
    }

    fn address(&self, fingerprint: Fingerprint) -> usize {
        (fingerprint.number() >> (FINGERPRINT_BITS - u32::from(self.depth))) as usize
    }

    /// The number of addresses of a page of this depth.
    fn count(&self, depth: u8) -> usize {
        1 << (self.depth - depth)
    }

    fn pages_of(&self, depth: u8) -> u32 {
        self.by_depth.get(usize::from(depth)).copied().unwrap_or(0)
    }

    fn change(&mut self, depth: u8, change: i32) {
        let depth = usize::from(depth);
        if depth >= self.by_depth.len() {
            self.by_depth.resize(depth + 1, 0);
        }
        self.by_depth[depth] = self.by_depth[depth].saturating_add_signed(change);
    }
}
