//! What the records make: the index and the trends.

use parking_lot::Mutex;

use super::record::{FORGET, PAIRS, Reader, TREND};
use super::trends::Trends;
use crate::domain::{Slot, TimeFrame, Timestamp};
use crate::index::{Entry, Fingerprint, Index};

/// All that a snapshot keeps.
#[derive(Debug)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) trends: Mutex<Trends>,
}

impl State {
    pub(super) fn new(frame: TimeFrame) -> Self {
        Self {
            index: Index::new(frame.full_window().slots()),
            trends: Mutex::default(),
        }
    }

    /// Applies one record, live or at replay; applying it again changes nothing. `scratch` saves an allocation a
    /// record.
    pub(super) fn apply(&self, record: &[u8], scratch: &mut Vec<Entry>) -> Result<(), String> {
        let mut reader = Reader(record);
        match reader.u8()? {
            PAIRS => self.apply_pairs(&mut reader, scratch)?,
            FORGET => {
                let fingerprint = Fingerprint::from_number(reader.u64()?);
                self.index.erase(fingerprint, Slot::new(0));
            }
            TREND => self.apply_trend(&mut reader)?,
            other => return Err(format!("a record of kind {other} is not known")),
        }
        reader.end()
    }

    fn apply_pairs(&self, reader: &mut Reader<'_>, scratch: &mut Vec<Entry>) -> Result<(), String> {
        let base = Slot::new(reader.u64()?);
        for _ in 0..reader.u32()? {
            let segment = reader.segment()?;
            reader.entries(scratch)?;
            self.index.upsert(&segment, scratch, base);
        }
        Ok(())
    }

    fn apply_trend(&self, reader: &mut Reader<'_>) -> Result<(), String> {
        let mut trends = self.trends.lock();
        for _ in 0..reader.u32()? {
            let segment = reader.segment()?;
            let window = reader.u64()?;
            let at = Timestamp::from_second(reader.i64()?)
                .map_err(|_| "a trend point's instant is out of range".to_owned())?;
            trends.add(&segment, window, at, reader.u64()?);
        }
        Ok(())
    }
}
