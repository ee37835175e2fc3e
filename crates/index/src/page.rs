//! A sorted run of entries whose fingerprints share their first bits.

use super::entry::{Entry, FINGERPRINT_BITS, Fingerprint};

/// A page with this many entries splits before it takes another: 1 KiB. Measured at 20 million pairs: 256 took
/// new pairs at 3.8 M/s and 10.8 resident bytes each, 128 at 4.7 and 10.2, 64 at 5.1 and 10.0; but 64 needs
/// twice the headers and halves the rates of sweeps and loads.
pub(super) const FULL: usize = 128;

/// How far to walk from the expected position before a binary search takes over. With uniform fingerprints
/// the distance's standard deviation is at most 6 (half the root of [`FULL`]).
const WALK: usize = 16;

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

    /// How many first bits all fingerprints of this page share.
    pub(super) fn depth(&self) -> u8 {
        self.depth
    }

    /// The least fingerprint that belongs to the page which `fingerprint` belongs to.
    pub(super) fn start(&self, fingerprint: Fingerprint) -> Fingerprint {
        let rest = FINGERPRINT_BITS - u32::from(self.depth);
        Fingerprint::from_number(fingerprint.number() >> rest << rest)
    }

    /// The least fingerprint after that page, if there is one.
    pub(super) fn end(&self, fingerprint: Fingerprint) -> Option<Fingerprint> {
        let span = 1_u64 << (FINGERPRINT_BITS - u32::from(self.depth));
        let end = self.start(fingerprint).number() + span;
        (end < 1 << FINGERPRINT_BITS).then(|| Fingerprint::from_number(end))
    }

    /// Where `fingerprint` would be if the page's fingerprints were spread evenly; 0 in an empty page.
    pub(super) fn guess(&self, fingerprint: Fingerprint) -> usize {
        let fraction = fingerprint.aligned() << self.depth >> 32;
        ((fraction * self.entries.len() as u64) >> 32) as usize
    }

    /// Where `fingerprint` is (`Ok`) or would be inserted (`Err`).
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
            let limit = entries.len().min(position + WALK);
            while position < limit {
                if entries[position] >= least {
                    return position;
                }
                position += 1;
            }
            position + entries[position..].partition_point(|entry| *entry < least)
        } else {
            let limit = position.saturating_sub(WALK);
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

    /// Keeps the entries that `keep` wants and gives back the room of the others.
    pub(super) fn retain(&mut self, keep: impl Fn(Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|entry| keep(*entry));
        if self.entries.len() < before {
            self.entries.shrink_to(step(self.entries.len()));
        }
    }

    /// Takes all entries out, to put them back merged with others by [`replace`](Self::replace).
    pub(super) fn take(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Room for `len` entries in a step of growth.
    pub(super) fn room(len: usize) -> Vec<Entry> {
        Vec::with_capacity(step(len))
    }

    pub(super) fn replace(&mut self, mut entries: Vec<Entry>) {
        entries.shrink_to(step(entries.len()));
        self.entries = entries;
    }

    /// Moves the upper half of the page's range into a new page; both are one bit deeper.
    pub(super) fn split(&mut self) -> Self {
        let bit = 1_u64 << (u64::BITS - 1 - u32::from(self.depth));
        let middle = self
            .entries
            .partition_point(|entry| entry.to_bits() & bit == 0);
        let upper = &self.entries[middle..];
        let mut entries = Self::room(upper.len());
        entries.extend_from_slice(upper);
        self.entries.truncate(middle);
        self.entries.shrink_to(step(middle));
        self.depth += 1;
        Self {
            entries,
            depth: self.depth,
        }
    }

    /// Takes in the page that covers the other, upper half of the range one bit less deep.
    pub(super) fn join(&mut self, upper: Self) {
        let len = self.entries.len() + upper.entries.len();
        if len > self.entries.capacity() {
            self.entries.reserve_exact(step(len) - self.entries.len());
        }
        self.entries.extend_from_slice(&upper.entries);
        self.depth -= 1;
    }
}

/// The least capacity for `len` entries that fills one of the allocator's size classes (four per doubling),
/// so that a page wastes neither the class nor, on average, more than a tenth of itself.
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
