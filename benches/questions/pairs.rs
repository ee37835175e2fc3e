//! The pairs: which users each segment has, and when they were last seen there.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use domain::{FingerprintKey, Slot, UserId};
use index::{Entry, Fingerprint, Index};

use super::{HEAD, WINDOW, head, new_index, segment};

/// The key of the fingerprints, any.
const KEY: FingerprintKey = FingerprintKey::new([7; 16]);

/// A user in a segment.
#[derive(Clone, Copy)]
struct Seen {
    user: u32,
    slot: u64,
}

/// Distinct pairs, by segment.
pub(crate) struct Pairs {
    segments: Vec<Vec<Seen>>,
    /// By number of the user.
    fingerprints: Vec<Fingerprint>,
}

impl Pairs {
    /// Segments of these sizes, each with random users out of so many.
    pub(crate) fn new(sizes: &[usize], users: u32) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut segments = Vec::with_capacity(sizes.len());
        for size in sizes {
            let mut segment = Vec::with_capacity(*size);
            for user in 0..users {
                let missing = size - segment.len();
                if random.u32(..users - user) < missing as u32 {
                    let slot = HEAD - random.u64(..u64::from(WINDOW));
                    segment.push(Seen { user, slot });
                }
            }
            segments.push(segment);
        }
        let fingerprint = |user: u32| Fingerprint::of(&UserId::new(user.to_string()).unwrap(), KEY);
        Self {
            segments,
            fingerprints: (0..users).map(fingerprint).collect(),
        }
    }

    /// By Zipf's law: the size of a segment is in inverse proportion to its rank.
    pub(crate) fn zipf(segments: usize, users: u32, pairs: usize) -> Self {
        let total: f64 = (1..=segments).map(|rank| 1.0 / rank as f64).sum();
        let size = |rank: usize| (pairs as f64 / rank as f64 / total) as usize;
        let sizes: Vec<usize> = (1..=segments).map(size).collect();
        Self::new(&sizes, users)
    }

    pub(crate) fn number(&self) -> usize {
        self.segments.iter().map(Vec::len).sum()
    }

    /// The entries of a segment in ascending order.
    pub(crate) fn entries(&self, segment: usize) -> Vec<Entry> {
        let entries = self.segments[segment].iter().map(|seen| {
            let fingerprint = self.fingerprints[seen.user as usize];
            Entry::new(fingerprint, Slot::new(seen.slot))
        });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_unstable();
        entries
    }

    pub(crate) fn index(&self) -> Index {
        let index = new_index();
        for number in 0..self.segments.len() {
            index.load_sorted(&segment(number), &self.entries(number), head());
        }
        index
    }

    /// Writes what the peers read: `pairs.csv` with segment, number and hash of the user, and slot; the numbers of the users,
    /// segment by segment; and the sizes of the segments.
    pub(crate) fn write(&self, directory: &Path) {
        let create = |name| BufWriter::new(File::create(directory.join(name)).unwrap());
        let (mut csv, mut users, mut sizes) =
            (create("pairs.csv"), create("users"), create("sizes"));
        for (number, segment) in self.segments.iter().enumerate() {
            for Seen { user, slot } in segment {
                let hash = self.fingerprints[*user as usize].number();
                writeln!(csv, "{number},{user},{hash},{slot}").unwrap();
                users.write_all(&user.to_ne_bytes()).unwrap();
            }
            sizes
                .write_all(&(segment.len() as u32).to_ne_bytes())
                .unwrap();
        }
        for mut file in [csv, users, sizes] {
            file.flush().unwrap();
        }
    }
}
