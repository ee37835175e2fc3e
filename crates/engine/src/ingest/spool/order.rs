//! Whether pairs came before an erasure or after it, though clocks may stand still, go back over a restart, or differ from
//! that of the instance which erased the user.
//!
//! What came first has the earlier instant or the same one, what came after an erasure that was known here a later one. The
//! latest known erasure is noted in a file, since the clock of the next start may be behind it.

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
    /// The erasure in the file.
    noted: Mutex<i64>,
}

/// In microseconds.
#[derive(Debug)]
struct Latest {
    pair: i64,
    erasure: i64,
}

impl Order {
    /// Of a spool in `dir` whose newest pairs came at `newest`. It blocks.
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

    /// As of when pairs are received that come now.
    pub(super) fn received_at(&self, now: Timestamp) -> Timestamp {
        let mut latest = self.latest.lock();
        let received = now.as_microsecond().max(latest.erasure.saturating_add(1));
        latest.pair = latest.pair.max(received);
        Timestamp::from_microsecond(received).unwrap_or(now)
    }

    /// As of when a user is erased now.
    pub(super) fn erasure_at(&self, now: Timestamp) -> Timestamp {
        let mut latest = self.latest.lock();
        let at = now.as_microsecond().max(latest.pair);
        latest.erasure = latest.erasure.max(at);
        Timestamp::from_microsecond(at).unwrap_or(now)
    }

    /// The latest of `now` and of when any pairs were received.
    pub(super) fn latest(&self, now: Timestamp) -> Timestamp {
        let pair = Timestamp::from_microsecond(self.latest.lock().pair);
        pair.map_or(now, |pair| pair.max(now))
    }

    /// A user was erased at `at`: what comes from now on comes after it.
    pub(super) fn was_erased(&self, at: Timestamp) {
        let mut latest = self.latest.lock();
        latest.erasure = latest.erasure.max(at.as_microsecond());
    }

    /// Whether the file lacks the latest erasure.
    pub(super) fn is_to_note(&self) -> bool {
        let latest = self.latest.lock().erasure;
        latest > *self.noted.lock()
    }

    /// Notes the latest erasure for the next start. It blocks.
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
