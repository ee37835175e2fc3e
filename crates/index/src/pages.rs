//! All pages of a segment: they split alone as they fill, and join as they empty, so no step touches all
//! entries.

use super::directory::Directory;
use super::entry::{Entry, Fingerprint};
use super::page::{FULL, Page};

/// Page headers per chunk: a growing segment never moves all its headers at once.
const CHUNK: usize = 1024;

/// Two halves join when together they fill at most this much of a page, so that they don't split again soon.
const JOINED: usize = FULL / 2;

/// A segment with fewer entries (32 KiB) is not worth it to warm. One that fits the processor's second-level
/// cache still is: it shares that cache with all the others.
const COLD: usize = 1 << 12;

/// The entries of one segment.
#[derive(Debug)]
pub(super) struct Pages {
    directory: Directory,
    chunks: Vec<Vec<Page>>,
    /// Numbers of pages that joined another and are empty.
    free: Vec<u32>,
    len: usize,
    /// Entries for which there is room.
    room: usize,
}

/// What [`Pages::sweep`] did with a page.
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
            room: 0,
        }
    }

    /// How many entries are held.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// An estimate of the memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let headers: usize = self.chunks.iter().map(Vec::capacity).sum();
        self.room * size_of::<Entry>()
            + headers * size_of::<Page>()
            + self.free.capacity() * size_of::<u32>()
            + self.directory.bytes()
    }

    /// The number of the page that `fingerprint` belongs to.
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

    /// Touches what a look-up of each of `block` will read, so that their cache misses overlap instead of
    /// following one another.
    pub(super) fn warm(&self, block: &[Entry]) {
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

    /// All entries, page by page in no particular order.
    pub(super) fn runs(&self) -> impl Iterator<Item = &[Entry]> {
        self.chunks.iter().flatten().map(Page::entries)
    }

    /// The entry of `fingerprint`.
    pub(super) fn get(&self, fingerprint: Fingerprint) -> Option<Entry> {
        let page = self.page(self.locate(fingerprint));
        let position = page.find(fingerprint).ok()?;
        Some(page.entries()[position])
    }

    /// Replaces the entry at a position of a page by one of the same fingerprint.
    pub(super) fn set(&mut self, number: u32, position: usize, entry: Entry) {
        self.page_mut(number).set(position, entry);
    }

    /// Inserts an entry where [`Page::find`] of the located page said.
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
        self.room += grown;
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

    /// The number of the page of the first of `sorted`, and how many of them belong to it, after splitting
    /// the page so far that it has room for them.
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

    /// Gives a page what `merge` makes of its entries: ascending and within the page's range.
    pub(super) fn rewrite(&mut self, number: u32, merge: impl FnOnce(Vec<Entry>) -> Vec<Entry>) {
        let page = self.page_mut(number);
        let (len, room) = (page.len(), page.capacity());
        let old = page.take();
        page.replace(merge(old));
        let (new_len, new_room) = (page.len(), page.capacity());
        self.len = self.len - len + new_len;
        self.room = self.room - room + new_room;
    }

    /// Drops what `keep` doesn't want from the page of `from`, and joins the page with the one below it where
    /// both became small. The page above is left for its turn: it may hold what was not swept yet.
    pub(super) fn sweep(&mut self, from: Fingerprint, keep: impl Fn(Entry) -> bool) -> SweptPage {
        let number = self.locate(from);
        let page = self.page_mut(number);
        let (examined, room) = (page.len(), page.capacity());
        page.retain(keep);
        let next = page.end(from);
        let removed = examined - page.len();
        let new_room = page.capacity();
        self.room = self.room - room + new_room;
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

    /// Splits the page that `fingerprint` belongs to; `false` when the directory may not grow for it, given
    /// how many entries are expected in all.
    fn split(&mut self, number: u32, fingerprint: Fingerprint, expected: usize) -> bool {
        let depth = self.page(number).depth();
        if !self.directory.make_room(depth, expected) {
            return false;
        }
        let page = self.page_mut(number);
        let start = page.start(fingerprint);
        let before = page.capacity();
        let upper = page.split();
        let after = page.capacity() + upper.capacity();
        self.room = self.room - before + after;
        let upper = self.add(upper);
        self.directory.split(start, depth, upper);
        true
    }

    /// Joins the page of `fingerprint` into the other half of the range one bit less deep, if that half is
    /// below, undivided, and both are small.
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
        self.room = self.room - before + after;
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
