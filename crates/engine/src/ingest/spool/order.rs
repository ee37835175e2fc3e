//! The order of received pairs and erasures. It does not rely on the clock, which may stop, go back over a restart, or
//! differ from the clock of the instance that erased the user.
//!
//! Pairs received before an erasure have an earlier instant, or the same one. Pairs received after an erasure is known here
//! have a later one. The latest known erasure is written to a file, because the clock may be behind it after a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::number;
use domain::Timestamp;
use domain::store::StoreError;
use wal::Disk;

const NAME: &str = "erased";

#[derive(Debug)]
pub(super) struct Order {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    latest: Mutex<Latest>,
    /// The instant of the erasure in the file, in microseconds.
    noted: Mutex<i64>,
}

/// The latest instants, in microseconds.
#[derive(Debug)]
struct Latest {
    pair: i64,
    erasure: i64,
}

impl Order {
    /// Opens the order of a spool in `dir` whose newest pairs were received at `newest`. Blocks.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        newest: Timestamp,
    ) -> Result<Self, StoreError> {
        let what = "the instant of an erasure in microseconds";
        let noted = number::read(&*disk, dir, NAME, what)?.unwrap_or(i64::MIN);
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            latest: Mutex::new(Latest {
                pair: newest.as_microsecond(),
                erasure: noted,
            }),
            noted: Mutex::new(noted),
        })
    }

    /// The instant for pairs that are received now.
    pub(super) fn received_at(&self, now: Timestamp) -> Timestamp {
        let mut latest = self.latest.lock();
        let received = now.as_microsecond().max(latest.erasure.saturating_add(1));
        latest.pair = latest.pair.max(received);
        Timestamp::from_microsecond(received).unwrap_or(now)
    }

    /// The instant for an erasure that happens now.
    pub(super) fn erasure_at(&self, now: Timestamp) -> Timestamp {
        let mut latest = self.latest.lock();
        let at = now.as_microsecond().max(latest.pair);
        latest.erasure = latest.erasure.max(at);
        Timestamp::from_microsecond(at).unwrap_or(now)
    }

    /// The later of `now` and the latest time at which any pairs were received.
    pub(super) fn latest(&self, now: Timestamp) -> Timestamp {
        let pair = Timestamp::from_microsecond(self.latest.lock().pair);
        pair.map_or(now, |pair| pair.max(now))
    }

    /// Notes an erasure at `at`. Pairs received from now on are dated after it.
    pub(super) fn was_erased(&self, at: Timestamp) {
        let mut latest = self.latest.lock();
        latest.erasure = latest.erasure.max(at.as_microsecond());
    }

    /// Whether the file lacks the latest erasure.
    pub(super) fn is_to_note(&self) -> bool {
        let latest = self.latest.lock().erasure;
        latest > *self.noted.lock()
    }

    /// Writes the latest erasure to the file. Blocks.
    pub(super) fn note(&self) -> Result<(), StoreError> {
        let mut noted = self.noted.lock();
        let latest = self.latest.lock().erasure;
        if latest > *noted {
            number::write(&*self.disk, &self.dir, NAME, latest)?;
            *noted = latest;
        }
        Ok(())
    }
}
