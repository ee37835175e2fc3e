//! One counter per slot of the window: the number of users last seen in it.

/// Slots per chunk. A chunk without users takes no memory.
const CHUNK: usize = 256;

/// The counters of a window that ends at the head and moves with it.
///
/// A slot is identified by its **age**, its distance before the head: from 0 to the length of the window less one.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    chunks: Vec<Chunk>,
    window: usize,
    /// The position of the counter of age 0.
    head: usize,
    live: u64,
}

#[derive(Debug, Clone, Default)]
struct Chunk {
    /// The sum of the chunk's counters, so that a count adds up chunks instead of slots.
    total: u64,
    counters: Counters,
}

/// Most counters of most segments are small: they take a byte each until one of the chunk overflows.
#[derive(Debug, Clone, Default)]
enum Counters {
    #[default]
    Absent,
    Small(Box<[u8; CHUNK]>),
    Large(Box<[u64; CHUNK]>),
}

impl Ring {
    pub(super) fn new(window: u32) -> Self {
        let window = window as usize;
        let mut chunks = Vec::new();
        chunks.resize_with(window.div_ceil(CHUNK), Chunk::default);
        Self {
            chunks,
            window,
            head: 0,
            live: 0,
        }
    }

    /// The number of users in the whole window.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// The estimated memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let counters: usize = self.chunks.iter().map(|chunk| chunk.counters.bytes()).sum();
        counters + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// Adds a user who was last seen `age` slots ago, and was not in the window.
    pub(super) fn add(&mut self, age: u32) {
        self.add_many(age, 1);
    }

    /// Adds to the counter of a slot.
    pub(super) fn add_many(&mut self, age: u32, users: u64) {
        let position = self.position(age);
        self.chunks[position / CHUNK].add(position % CHUNK, users);
        self.live += users;
    }

    /// The counter of a slot.
    pub(super) fn at(&self, age: u32) -> u64 {
        let position = self.position(age);
        self.chunks[position / CHUNK].at(position % CHUNK)
    }

    /// Removes a user who was last seen `age` slots ago.
    pub(super) fn remove(&mut self, age: u32) {
        let position = self.position(age);
        self.chunks[position / CHUNK].remove(position % CHUNK);
        self.live -= 1;
    }

    /// Advances the head by fewer slots than the window has, and removes the users of the slots that leave the window.
    pub(super) fn advance(&mut self, slots: u64) {
        for _ in 0..slots {
            self.head += 1;
            if self.head == self.window {
                self.head = 0;
            }
            // The new head reuses the position of the slot that leaves.
            self.live -= self.chunks[self.head / CHUNK].take(self.head % CHUNK);
        }
    }

    /// The number of users seen within the latest `window` slots.
    pub(super) fn count(&self, window: u32) -> u64 {
        let window = window as usize;
        if window >= self.window {
            return self.live;
        }
        let end = self.head + 1;
        if window <= end {
            self.sum(end - window, end)
        } else {
            self.sum(0, end) + self.sum(self.window - (window - end), self.window)
        }
    }

    fn sum(&self, start: usize, end: usize) -> u64 {
        let mut total = 0;
        let mut from = start;
        while from < end {
            let chunk_start = from / CHUNK * CHUNK;
            let to = end.min(chunk_start + CHUNK);
            total += self.chunks[from / CHUNK].sum(from - chunk_start, to - chunk_start);
            from = to;
        }
        total
    }

    fn position(&self, age: u32) -> usize {
        let age = age as usize;
        if age <= self.head {
            self.head - age
        } else {
            self.head + self.window - age
        }
    }
}

impl Chunk {
    fn add(&mut self, place: usize, users: u64) {
        self.total += users;
        if let Counters::Absent = self.counters {
            self.counters = Counters::Small(Box::new([0; CHUNK]));
        }
        match &mut self.counters {
            Counters::Large(counters) => counters[place] += users,
            Counters::Small(counters) => {
                let sum = u64::from(counters[place]) + users;
                match u8::try_from(sum) {
                    Ok(sum) => counters[place] = sum,
                    Err(_) => {
                        let mut large = Box::new(counters.map(u64::from));
                        large[place] = sum;
                        self.counters = Counters::Large(large);
                    }
                }
            }
            Counters::Absent => {}
        }
    }

    fn at(&self, place: usize) -> u64 {
        match &self.counters {
            Counters::Large(counters) => counters[place],
            Counters::Small(counters) => u64::from(counters[place]),
            Counters::Absent => 0,
        }
    }

    fn remove(&mut self, place: usize) {
        self.total -= 1;
        match &mut self.counters {
            Counters::Large(counters) => counters[place] -= 1,
            Counters::Small(counters) => counters[place] -= 1,
            Counters::Absent => {}
        }
    }

    fn take(&mut self, place: usize) -> u64 {
        let count = match &mut self.counters {
            Counters::Large(counters) => std::mem::take(&mut counters[place]),
            Counters::Small(counters) => u64::from(std::mem::take(&mut counters[place])),
            Counters::Absent => 0,
        };
        self.total -= count;
        if self.total == 0 {
            self.counters = Counters::Absent;
        }
        count
    }

    fn sum(&self, start: usize, end: usize) -> u64 {
        if end - start == CHUNK {
            return self.total;
        }
        match &self.counters {
            Counters::Large(counters) => counters[start..end].iter().sum(),
            Counters::Small(counters) => counters[start..end].iter().map(|c| u64::from(*c)).sum(),
            Counters::Absent => 0,
        }
    }
}

impl Counters {
    fn bytes(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Small(_) => size_of::<[u8; CHUNK]>(),
            Self::Large(_) => size_of::<[u64; CHUNK]>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the ring with a list of ages.
    #[test]
    fn agrees_with_a_list_while_time_moves() {
        for window in [1, 2, 255, 256, 257, 700] {
            let mut ring = Ring::new(window);
            let mut ages: Vec<u32> = (0..window).chain([0; 300]).collect();
            for age in &ages {
                ring.add(*age);
            }
            for step in [0, 1, 2, 300] {
                if step >= window {
                    continue;
                }
                ring.advance(u64::from(step));
                ages.iter_mut().for_each(|age| *age += step);
                ages.retain(|age| *age < window);
                for shorter in [1, 2, 3, 100, 256, 511, window] {
                    let expected = ages.iter().filter(|age| **age < shorter).count();
                    assert_eq!(ring.count(shorter), expected as u64);
                }
                assert_eq!(ring.live(), ages.len() as u64);
            }
            for age in &ages {
                ring.remove(*age);
            }
            assert_eq!(ring.live(), 0);
            assert_eq!(ring.count(window), 0);
        }
    }
}
