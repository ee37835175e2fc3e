//! Loads a snapshot.

use std::path::Path;

use super::Subject;
use super::blocks::{BlockReader, damaged};
use super::flows::{self, MarkedFlows};
use super::following;
use super::record;
use super::snapshot::{
    COVERED, END, ENTRIES, ERASED_IN, ERASURES, FLOW, MARK, POSITION, PROPERTY, RESET, START,
    Snapshot, TREND, VERSION, name,
};
use super::state::State;
use super::trends::Point;
use domain::{Segment, Slot, Timestamp};
use index::{Entry, Fingerprint, FlowLayout, SavedFlows};
use wal::{Disk, Fields, LogError, Position};

/// Entries of a segment that are loaded at once. More make loading faster, fewer take less memory.
const LOAD_ENTRIES: usize = 4 << 20;

/// Loads a snapshot of `dir` into an empty state.
pub(super) fn load(
    disk: &dyn Disk,
    dir: &Path,
    next: u64,
    state: &State,
) -> Result<Snapshot, LogError> {
    let path = dir.join(name(next));
    let mut file = disk
        .open(&path)
        .map_err(|error| LogError::io("open", &path, &error))?;
    let mut reader = BlockReader::new(file.as_mut(), &path)?;
    let bytes = reader.size();
    let mut loader = Loader {
        state,
        next,
        pending: None,
        begun: None,
        ended: false,
    };
    while let Some(block) = reader.next()? {
        loader
            .block(block.body, block.before)
            .map_err(|reason| damaged(&path, block.at, &reason))?;
    }
    match loader.begun {
        Some(begun) if loader.ended => Ok(Snapshot { next, bytes, begun }),
        _ => Err(damaged(&path, bytes, "the end is missing")),
    }
}

/// Applies blocks to the state. Collects the entries of a segment before it loads them.
struct Loader<'a> {
    state: &'a State,
    next: u64,
    pending: Option<(Segment, Slot, Vec<Entry>)>,
    begun: Option<Timestamp>,
    ended: bool,
}

impl Loader<'_> {
    fn block(&mut self, body: &[u8], blocks_before: u64) -> Result<(), String> {
        if self.ended {
            return Err("a block follows the end".to_owned());
        }
        let mut fields = Fields::of(body);
        let kind = fields.u8()?;
        if (kind == START) != (blocks_before == 0) {
            return Err("the start block is not the first block".to_owned());
        }
        match kind {
            START => self.start(&mut fields)?,
            ENTRIES => self.entries(&mut fields)?,
            TREND => self.trend(&mut fields)?,
            PROPERTY => {
                let (name, value) = record::property_of(&mut fields)?;
                self.state.set_property(name, value);
            }
            MARK => self.mark(&mut fields)?,
            FLOW => self.flow(&mut fields)?,
            POSITION => {
                let position = following::position(&mut fields)?;
                self.state.following.lock().position = Some(position);
            }
            ERASURES => {
                let mut following = self.state.following.lock();
                following.restore_noted(fields.u64()?);
                for _ in 0..fields.u32()? {
                    let fingerprint = Fingerprint::from_number(fields.u64()?);
                    let erased = following::Erased {
                        at: fields.i64()?,
                        number: fields.u64()?,
                    };
                    following.restore_erasure(Subject::User(fingerprint), erased);
                }
            }
            ERASED_IN => {
                let mut following = self.state.following.lock();
                following.restore_noted(fields.u64()?);
                let segment = record::segment(&mut fields)?;
                let has_user = fields.u8()? != 0;
                let user = Fingerprint::from_number(fields.u64()?);
                let erased = following::Erased {
                    at: fields.i64()?,
                    number: fields.u64()?,
                };
                let subject = match has_user {
                    true => Subject::Pair(segment, user),
                    false => Subject::Segment(segment),
                };
                following.restore_erasure(subject, erased);
            }
            COVERED => {
                let covered = following::covered(&mut fields)?;
                self.state.following.lock().cover(covered);
            }
            RESET => {
                let segment = record::segment(&mut fields)?;
                self.state.following.lock().reset.insert(segment);
            }
            END => {
                self.flush();
                if fields.u64()? != blocks_before {
                    return Err("blocks are missing".to_owned());
                }
                self.ended = true;
            }
            other => return Err(format!("unknown block kind {other}")),
        }
        fields.end()
    }

    fn start(&mut self, fields: &mut Fields<'_>) -> Result<(), String> {
        let version = fields.u32()?;
        if !(1..=VERSION).contains(&version) {
            return Err(format!("unknown snapshot version {version}"));
        }
        if fields.u64()? != self.next {
            return Err(
                "the number in the file's name differs from that in its contents".to_owned(),
            );
        }
        self.state.note_newest(Slot::new(fields.u64()?));
        let seconds = fields.u64()?;
        let begun = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        self.begun = Some(begun.ok_or("the start time is out of range")?);
        Ok(())
    }

    fn entries(&mut self, fields: &mut Fields<'_>) -> Result<(), String> {
        let segment = record::segment(fields)?;
        let base = Slot::new(fields.u64()?);
        let mut entries = Vec::new();
        record::entries(fields, &mut entries)?;
        match &mut self.pending {
            // Only blocks with the same base are merged, so the distance between bases does not matter.
            Some((pending, shared, collected))
                if *pending == segment && *shared == base && collected.len() < LOAD_ENTRIES =>
            {
                collected.extend_from_slice(&entries);
            }
            _ => {
                self.flush();
                self.pending = Some((segment, base, entries));
            }
        }
        Ok(())
    }

    fn mark(&mut self, fields: &mut Fields<'_>) -> Result<(), String> {
        let (file, offset) = (fields.u64()?, fields.u64()?);
        let (window, step) = (fields.u32()?, fields.u32()?);
        let (since, head) = (Slot::new(fields.u64()?), Slot::new(fields.u64()?));
        self.state.flows.lock().load(MarkedFlows {
            at: Position { file, offset },
            layout: FlowLayout { window, step },
            since,
            head,
            segments: Vec::new(),
        });
        Ok(())
    }

    fn flow(&mut self, fields: &mut Fields<'_>) -> Result<(), String> {
        let segment = record::segment(fields)?;
        let saved = SavedFlows {
            since: fields.u64()?,
            head: fields.u64()?,
            slots: flows::by_age(fields)?,
            steps: flows::by_age(fields)?,
        };
        let mut flows = self.state.flows.lock();
        let marked = flows.loaded_mut().ok_or("counters precede their mark")?;
        marked.segments.push((segment, saved));
        Ok(())
    }

    fn flush(&mut self) {
        if let Some((segment, base, entries)) = self.pending.take() {
            self.state.index.load_sorted(&segment, &entries, base);
        }
    }

    fn trend(&self, fields: &mut Fields<'_>) -> Result<(), String> {
        let segment = record::segment(fields)?;
        let window = fields.u64()?;
        let mut trends = self.state.trends.lock();
        for _ in 0..fields.u32()? {
            let (at, users) = (fields.u32()?, fields.u32()?);
            trends.add(&segment, window, Point { at, users });
        }
        Ok(())
    }
}
