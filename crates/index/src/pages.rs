//! All pages of a segment. Each page splits by itself when it is full, and merges with another when both are nearly
//! empty, so no step accesses all entries.

use super::directory::Directory;
use super::entry::{Entry, Fingerprint};
use super::page::{FULL, Page};

/// Page headers per chunk. Because of chunks, a growing segment never moves all its headers at once.
const CHUNK: usize = 1024;

/// Two halves merge if together they have at most this many entries, so that they don't split again soon.
const JOINED: usize = FULL / 2;

/// Prefetching does not pay off for a segment with fewer entries (32 KiB). It does for a segment that fits the CPU's L2
/// cache, because all segments share that cache.
const COLD: usize = 1 << 12;

/// The entries of one segment.
#[derive(Debug)]
pub(super) struct Pages {
    directory: Directory,
    chunks: Vec<Vec<Page>>,
    /// Numbers of pages that were merged into another and are empty.
    free: Vec<u32>,
    len: usize,
    /// The capacity of all pages, in entries.
    capacity: usize,
}

/// The result of [`Pages::sweep`].
#[derive(Debug, Clone, Copy)]
pub(super) struct SweptPage {
    pub(super) examined: usize,
    pub(super) removed: usize,
    /// Where the next page starts.
    pub(super) next: Option<Fingerprint>,
}

impl Pages {
    pub(super) fn new() -> Self {
        Self {
            directory: Directory::new(0),
            chunks: vec![vec![Page::default()]],
            free: Vec::new(),
            len: 0,
            capacity: 0,
        }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The estimated memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let headers: usize = self.chunks.iter().map(Vec::capacity).sum();
        self.capacity * size_of::<Entry>()
            + headers * size_of::<Page>()
            + self.free.capacity() * size_of::<u32>()
            + self.directory.bytes()
    }

    /// The number of the page whose range contains `fingerprint`.
    pub(super) fn locate(&self, fingerprint: Fingerprint) -> u32 {
        self.directory.find(fingerprint)
    }

    pub(super) fn page(&self, number: u32) -> &Page {
        let number = number as usize;
        &self.chunks[number / CHUNK][number % CHUNK]
    }

    fn page_mut(&mut self, number: u32) -> &mut Page {
        let number = number as usize;
        &mut self.chunks[number / CHUNK][number % CHUNK]
    }

    /// Reads the memory that a lookup of each entry of `block` needs, so that their cache misses overlap instead of
    /// happening one after another.
    pub(super) fn prefetch(&self, block: &[Entry]) {
        if self.len < COLD {
            return;
        }
        let mut touched = 0;
        for entry in block {
            let fingerprint = entry.fingerprint();
            let page = self.page(self.locate(fingerprint));
            if let Some(entry) = page.entries().get(page.guess(fingerprint)) {
                touched ^= entry.to_bits();
            }
        }
        std::hint::black_box(touched);
    }

    /// All entries, page by page. The order of the pages is undefined.
    pub(super) fn runs(&self) -> impl Iterator<Item = &[Entry]> {
        self.chunks.iter().flatten().map(Page::entries)
    }

    /// The entry of `fingerprint`.
    pub(super) fn get(&self, fingerprint: Fingerprint) -> Option<Entry> {
        let page = self.page(self.locate(fingerprint));
        let position = page.find(fingerprint).ok()?;
        Some(page.entries()[position])
    }

    /// Replaces the entry at a position of a page with one of the same fingerprint.
    pub(super) fn set(&mut self, number: u32, position: usize, entry: Entry) {
        self.page_mut(number).set(position, entry);
    }

    /// Inserts an entry at the position that [`Page::find`] of the located page returned.
    pub(super) fn insert(&mut self, number: u32, position: usize, entry: Entry) {
        let fingerprint = entry.fingerprint();
        let (mut number, mut position) = (number, position);
        while self.page(number).len() >= FULL && self.split(number, fingerprint, self.len) {
            number = self.locate(fingerprint);
            position = match self.page(number).find(fingerprint) {
                Ok(position) | Err(position) => position,
            };
        }
        let page = self.page_mut(number);
        let before = page.capacity();
        page.insert(position, entry);
        let grown = page.capacity() - before;
        self.capacity += grown;
        self.len += 1;
    }

    /// Removes the entry of `fingerprint` and returns it.
    pub(super) fn remove(&mut self, fingerprint: Fingerprint) -> Option<Entry> {
        let number = self.locate(fingerprint);
        let position = self.page(number).find(fingerprint).ok()?;
        let entry = self.page(number).entries()[position];
        self.page_mut(number).remove(position);
        self.len -= 1;
        Some(entry)
    }

    /// Splits the page of the first entry of `sorted` until it has capacity for all entries of `sorted` in its range.
    /// Returns the number of the page, and the number of these entries.
    pub(super) fn prepare(&mut self, sorted: &[Entry]) -> Option<(u32, usize)> {
        let fingerprint = sorted.first()?.fingerprint();
        loop {
            let number = self.locate(fingerprint);
            let page = self.page(number);
            let count = match page.end(fingerprint) {
                Some(end) => sorted.partition_point(|entry| entry.fingerprint() < end),
                None => sorted.len(),
            };
            let expected = self.len + sorted.len();
            if page.len() + count <= FULL || !self.split(number, fingerprint, expected) {
                return Some((number, count));
            }
        }
    }

    /// Replaces the entries of a page with the result of `merge`, which must be ascending and within the page's range.
    pub(super) fn rewrite(&mut self, number: u32, merge: impl FnOnce(Vec<Entry>) -> Vec<Entry>) {
        let page = self.page_mut(number);
        let (len, capacity) = (page.len(), page.capacity());
        let old = page.take();
        page.replace(merge(old));
        let (new_len, new_capacity) = (page.len(), page.capacity());
        self.len = self.len - len + new_len;
        self.capacity = self.capacity - capacity + new_capacity;
    }

    /// Removes the entries of the page of `from` for which `keep` is false, and merges the page with the one below it if
    /// both are small. The page above is not merged, because it may not be swept yet.
    pub(super) fn sweep(&mut self, from: Fingerprint, keep: impl Fn(Entry) -> bool) -> SweptPage {
        let number = self.locate(from);
        let page = self.page_mut(number);
        let (examined, capacity) = (page.len(), page.capacity());
        page.retain(keep);
        let next = page.end(from);
        let removed = examined - page.len();
        let new_capacity = page.capacity();
        self.capacity = self.capacity - capacity + new_capacity;
        self.len -= removed;
        if removed > 0 || examined == 0 {
            while self.join_below(from) {}
            self.directory.shrink();
        }
        SweptPage {
            examined,
            removed,
            next,
        }
    }

    /// Splits the page of `fingerprint`. `false` if the directory may not grow for that, given the expected number of
    /// entries of the segment.
    fn split(&mut self, number: u32, fingerprint: Fingerprint, expected: usize) -> bool {
        let depth = self.page(number).depth();
        if !self.directory.grow_for_split(depth, expected) {
            return false;
        }
        let page = self.page_mut(number);
        let start = page.start(fingerprint);
        let before = page.capacity();
        let upper = page.split();
        let after = page.capacity() + upper.capacity();
        self.capacity = self.capacity - before + after;
        let upper = self.add(upper);
        self.directory.split(start, depth, upper);
        true
    }

    /// Merges the page of `fingerprint` into the lower half of the range of one bit less, if the page is the upper half,
    /// the lower half is a single page, and both are small.
    fn join_below(&mut self, fingerprint: Fingerprint) -> bool {
        let number = self.locate(fingerprint);
        let page = self.page(number);
        let (start, depth, len) = (page.start(fingerprint), page.depth(), page.len());
        let Some(below) = self.directory.lower_half(start, depth) else {
            return false;
        };
        let lower = self.page(below);
        if lower.depth() != depth || lower.len() + len > JOINED {
            return false;
        }
        let upper = std::mem::take(self.page_mut(number));
        let lower = self.page_mut(below);
        let before = upper.capacity() + lower.capacity();
        lower.join(upper);
        let after = lower.capacity();
        self.capacity = self.capacity - before + after;
        self.free.push(number);
        self.directory.join(start, depth, below);
        true
    }

    fn add(&mut self, page: Page) -> u32 {
        if let Some(number) = self.free.pop() {
            *self.page_mut(number) = page;
            return number;
        }
        let number = (self.chunks.len() - 1) * CHUNK + self.chunks.last().map_or(0, Vec::len);
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(page),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(page);
                self.chunks.push(chunk);
            }
        }
        // 2^32 pages are 8 TiB.
        number as u32
    }
}
