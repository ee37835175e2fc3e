//! The number of bytes read so far, for the progress bar.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of bytes read so far, of all inputs together.
#[derive(Debug, Clone, Default)]
pub(super) struct Position(Arc<AtomicU64>);

impl Position {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A reader that adds the bytes it reads to a [`Position`].
pub(super) struct Counted {
    reader: Box<dyn Read + Send>,
    position: Position,
}

impl Counted {
    pub(super) fn new(reader: Box<dyn Read + Send>, position: &Position) -> Self {
        Self {
            reader,
            position: position.clone(),
        }
    }
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        self.position.0.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
