//! A sorted run of entries whose fingerprints share their first bits.

use super::entry::{Entry, FINGERPRINT_BITS, Fingerprint};

/// A page with this many entries (1 KiB) splits before the next insert. Measured at 20 million pairs: 256 entries
/// insert 3.8 M pairs/s at 10.8 resident bytes each, 128 entries 4.7 M/s at 10.2, 64 entries 5.1 M/s at 10.0. But 64
/// needs twice the headers, and halves the rates of sweeps and loads.
pub(super) const FULL: usize = 128;

/// The length of the linear search from the expected position before a binary search starts. With uniform fingerprints
/// the standard deviation of the distance is at most 6 (half the square root of [`FULL`]).
const LINEAR: usize = 16;

/// Entries in ascending order, each fingerprint once; all share the first `depth` bits.
#[derive(Debug, Default)]
pub(super) struct Page {
    entries: Vec<Entry>,
    depth: u8,
}

impl Page {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// The number of first bits that all fingerprints of this page share.
    pub(super) fn depth(&self) -> u8 {
        self.depth
    }

    /// The least fingerprint in the range of this page, which contains `fingerprint`.
    pub(super) fn start(&self, fingerprint: Fingerprint) -> Fingerprint {
        let rest = FINGERPRINT_BITS - u32::from(self.depth);
        Fingerprint::from_number(fingerprint.number() >> rest << rest)
    }

    /// The least fingerprint after that range, if there is one.
    pub(super) fn end(&self, fingerprint: Fingerprint) -> Option<Fingerprint> {
        let span = 1_u64 << (FINGERPRINT_BITS - u32::from(self.depth));
        let end = self.start(fingerprint).number() + span;
        (end < 1 << FINGERPRINT_BITS).then(|| Fingerprint::from_number(end))
    }

    /// The entries from `from`, which is in the range of this page, up to the number `end`.
    pub(super) fn between(&self, from: Fingerprint, end: u64) -> &[Entry] {
        let entries = &self.entries[self.lower_bound(from)..];
        if self.end(from).is_some_and(|own| own.number() <= end) {
            return entries;
        }
        &entries[..entries.partition_point(|entry| entry.fingerprint().number() < end)]
    }

    /// The expected position of `fingerprint` if the page's fingerprints were uniform; 0 in an empty page.
    pub(super) fn guess(&self, fingerprint: Fingerprint) -> usize {
        let fraction = fingerprint.aligned() << self.depth >> 32;
        ((fraction * self.entries.len() as u64) >> 32) as usize
    }

    /// The position of `fingerprint` (`Ok`), or the position to insert it (`Err`).
    pub(super) fn find(&self, fingerprint: Fingerprint) -> Result<usize, usize> {
        let position = self.lower_bound(fingerprint);
        match self.entries.get(position) {
            Some(entry) if entry.fingerprint() == fingerprint => Ok(position),
            _ => Err(position),
        }
    }

    /// The number of entries before `fingerprint`.
    fn lower_bound(&self, fingerprint: Fingerprint) -> usize {
        let entries = self.entries.as_slice();
        let least = Entry::from_bits(fingerprint.aligned());
        let mut position = self.guess(fingerprint);
        if position >= entries.len() {
            return 0;
        }
        if entries[position] < least {
            let limit = entries.len().min(position + LINEAR);
            while position < limit {
                if entries[position] >= least {
                    return position;
                }
                position += 1;
            }
            position + entries[position..].partition_point(|entry| *entry < least)
        } else {
            let limit = position.saturating_sub(LINEAR);
            while position > limit {
                if entries[position - 1] < least {
                    return position;
                }
                position -= 1;
            }
            entries[..position].partition_point(|entry| *entry < least)
        }
    }

    pub(super) fn set(&mut self, position: usize, entry: Entry) {
        self.entries[position] = entry;
    }

    pub(super) fn insert(&mut self, position: usize, entry: Entry) {
        let len = self.entries.len();
        if len == self.entries.capacity() {
            self.entries.reserve_exact(step(len + 1) - len);
        }
        self.entries.insert(position, entry);
    }

    pub(super) fn remove(&mut self, position: usize) {
        self.entries.remove(position);
    }

    /// Removes the entries for which `keep` is false, and frees their memory.
    pub(super) fn retain(&mut self, keep: impl Fn(Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|entry| keep(*entry));
        if self.entries.len() < before {
            self.entries.shrink_to(step(self.entries.len()));
        }
    }

    /// Takes all entries, for a merge with others; [`replace`](Self::replace) puts them back.
    pub(super) fn take(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// An empty vector with capacity for `len` entries, rounded up to a size class.
    pub(super) fn with_capacity(len: usize) -> Vec<Entry> {
        Vec::with_capacity(step(len))
    }

    pub(super) fn replace(&mut self, mut entries: Vec<Entry>) {
        entries.shrink_to(step(entries.len()));
        self.entries = entries;
    }

    /// Moves the upper half of the page's range to a new page. The depth of both is one more.
    pub(super) fn split(&mut self) -> Self {
        let bit = 1_u64 << (u64::BITS - 1 - u32::from(self.depth));
        let middle = self
            .entries
            .partition_point(|entry| entry.to_bits() & bit == 0);
        let upper = &self.entries[middle..];
        let mut entries = Self::with_capacity(upper.len());
        entries.extend_from_slice(upper);
        self.entries.truncate(middle);
        self.entries.shrink_to(step(middle));
        self.depth += 1;
        Self {
            entries,
            depth: self.depth,
        }
    }

    /// Merges the page of the upper half of a range into this page of the lower half. The depth is one less.
    pub(super) fn join(&mut self, upper: Self) {
        let len = self.entries.len() + upper.entries.len();
        if len > self.entries.capacity() {
            self.entries.reserve_exact(step(len) - self.entries.len());
        }
        self.entries.extend_from_slice(&upper.entries);
        self.depth -= 1;
    }
}

/// The least capacity for `len` entries that fills one of the allocator's size classes (four per doubling). So a page
/// wastes no part of its size class, and on average at most a tenth of its own capacity.
fn step(len: usize) -> usize {
    let spacing = (len.next_power_of_two() / 8).max(4);
    len.next_multiple_of(spacing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Slot;

    fn entry(number: u64) -> Entry {
        Entry::new(Fingerprint::from_number(number), Slot::new(1))
    }

    #[test]
    fn steps_are_size_classes() {
        let mut steps: Vec<usize> = (1..=256).map(step).collect();
        steps.dedup();
        assert_eq!(
            steps,
            [
                4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256
            ]
        );
        assert_eq!(step(0), 0);
    }

    #[test]
    fn finds_in_even_and_in_lumped_pages() {
        let lumps = [
            (0..200).map(|i| i << 40).collect::<Vec<u64>>(),
            (0..200).collect(),
            (0..100).chain((1 << 47)..(1 << 47) + 100).collect(),
            vec![5],
            vec![],
        ];
        for numbers in lumps {
            let mut page = Page::default();
            for number in numbers.iter().rev() {
                let fingerprint = Fingerprint::from_number(*number);
                let position = page.find(fingerprint).unwrap_err();
                page.insert(position, entry(*number));
            }
            for probe in numbers
                .iter()
                .flat_map(|n| [*n, n + 1, n.saturating_sub(1)])
            {
                let fingerprint = Fingerprint::from_number(probe);
                let expected = numbers.binary_search(&fingerprint.number());
                assert_eq!(page.find(fingerprint), expected);
            }
        }
    }

    #[test]
    fn splits_and_joins_at_the_next_bit() {
        let mut page = Page::default();
        let quarters = [0, 1, 1 << 46, 1 << 47, 3 << 46];
        for (position, number) in quarters.into_iter().enumerate() {
            page.insert(position, entry(number));
        }
        let mut upper = page.split();
        assert_eq!((page.len(), upper.len(), upper.depth()), (3, 2, 1));
        let top = upper.split();
        let in_upper = Fingerprint::from_number((1 << 47) + 9);
        assert_eq!(upper.start(in_upper).number(), 1 << 47);
        assert_eq!(upper.end(in_upper).unwrap().number(), 3 << 46);
        assert_eq!(top.end(Fingerprint::from_number(3 << 46)), None);
        upper.join(top);
        page.join(upper);
        assert_eq!(page.entries(), quarters.map(entry));
        assert_eq!(page.depth(), 0);
    }
}
