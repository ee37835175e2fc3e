//! A snapshot: the state in one file, so that older log files can be removed. [`load`](super::load) reads it.
//!
//! The file `N.snapshot` holds the effect of all log files before number N, and maybe of some records of file N. It is a
//! sequence of [blocks](super::blocks). A block's body is a kind and its fields:
//! - start: `1 u8 | version u32 | log file u64 | newest slot u64 | unix seconds when begun u64`
//! - entries: `2 u8 | segment | base slot u64 | entries u32, entry u64 *`, ascending within a segment
//! - trend: `3 u8 | segment | window seconds u64 | points u32, (at u32, users u32)*`
//! - property: `9 u8`, then as in its record
//! - end: `4 u8 | blocks before u64`
//!
//! Who entered and left, since version 2, which reads version 1:
//! - mark: `10 u8 | log file u64 | offset u64 | window slots u32 | slots of a step u32 | since slot u64 | head slot u64`, then for each segment
//! - flow: `11 u8 | segment | since slot u64 | head slot u64 | slots by age | steps by age`, as in [`flows`](super::flows)
//!
//! Those of a replica, as in its records: position `5 u8`, erasures `6 u8 | noted ever u64 | erasures u32 |
//! (fingerprint u64, at i64, number u64)*`, erasures in a segment `12 u8 | noted ever u64 | segment | has user u8 | fingerprint u64 |
//! at i64 | number u64`, covered `7 u8`, reset `8 u8 | segment`.

use std::path::Path;

use super::blocks::BlockWriter;
use super::flows::{MarkedFlows, push_by_age};
use super::following;
use super::record::{length, push_property, push_segment};
use super::state::State;
use super::trends::Point;
use domain::{Segment, Slot, Timestamp};
use index::{Entry, Fingerprint, Flows};
use wal::{Disk, LogError, UNFINISHED, replace_file};

pub(super) const START: u8 = 1;
pub(super) const ENTRIES: u8 = 2;
pub(super) const TREND: u8 = 3;
pub(super) const END: u8 = 4;
pub(super) const POSITION: u8 = 5;
pub(super) const ERASURES: u8 = 6;
pub(super) const COVERED: u8 = 7;
pub(super) const RESET: u8 = 8;
pub(super) const PROPERTY: u8 = 9;
pub(super) const MARK: u8 = 10;
pub(super) const FLOW: u8 = 11;
pub(super) const ERASED_IN: u8 = 12;
pub(super) const VERSION: u32 = 2;

/// Entries of one block: half a mebibyte.
const BLOCK_ENTRIES: usize = 64 << 10;
/// Pages within this many slots of each other share a base. An entry is then older than its base by at most two windows
/// (2^15 slots each), which is within the 2^16 slots that an entry can express.
const SHARED_BASE: u64 = 1 << 14;
const SUFFIX: &str = ".snapshot";

/// A complete snapshot on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    /// The number of the log file with which replay continues.
    pub(super) next: u64,
    /// The size of the file.
    pub(super) bytes: u64,
    /// When it was started, by the system clock.
    pub(super) begun: Timestamp,
}

/// Whether a file of this name is a snapshot.
pub(super) fn is_name(name: &str) -> bool {
    number(name).is_some()
}

pub(super) fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

fn number(of: &str) -> Option<u64> {
    let number = of.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(number) == of).then_some(number)
}

/// The numbers of the snapshots in `dir`, in order.
pub(super) fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, LogError> {
    let names = list(disk, dir)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes unfinished snapshots of a process that died while it wrote them.
pub(super) fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    for name in list(disk, dir)? {
        if name.strip_suffix(UNFINISHED).is_some_and(is_name) {
            remove(disk, &dir.join(name))?;
        }
    }
    Ok(())
}

/// Removes all snapshots before `newest`.
pub(super) fn remove_older(disk: &dyn Disk, dir: &Path, newest: u64) -> Result<(), LogError> {
    for older in numbers(disk, dir)? {
        if older < newest {
            remove(disk, &dir.join(name(older)))?;
        }
    }
    Ok(())
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, LogError> {
    disk.list(dir)
        .map_err(|error| LogError::io("list", dir, &error))
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    disk.remove(path)
        .map_err(|error| LogError::io("remove", path, &error))
}

/// What the writer of a snapshot calls.
pub(super) struct Calls<'a> {
    /// Whether to abandon the snapshot.
    pub(super) stopped: &'a dyn Fn() -> bool,
    /// Appends a mark to the log, and returns the counters as of the mark; `None` if they can't be known.
    pub(super) mark: &'a dyn Fn() -> Result<Option<MarkedFlows<Flows>>, LogError>,
}

/// Writes the state as the snapshot with which replay continues at log file `next`. Writers continue meanwhile: only the
/// copy of each page holds the lock of its segment. Returns `None` if `stopped` returned true.
pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    next: u64,
    state: &State,
    calls: Calls<'_>,
) -> Result<Option<Snapshot>, LogError> {
    let path = dir.join(name(next));
    let begun = Timestamp::now();
    let mut bytes = 0;
    let written = replace_file(disk, dir, &name(next), |file| {
        let mut writer = Writer {
            blocks: BlockWriter::new(file, &path),
            state,
            calls: &calls,
        };
        writer.all(next, begun)?;
        bytes = writer.blocks.bytes();
        Ok(())
    });
    match written {
        Err(LogError::Closed) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => Ok(Some(Snapshot { next, bytes, begun })),
    }
}

struct Writer<'a> {
    blocks: BlockWriter<'a>,
    state: &'a State,
    calls: &'a Calls<'a>,
}

impl Writer<'_> {
    fn all(&mut self, next: u64, begun: Timestamp) -> Result<(), LogError> {
        let mut body = vec![START];
        body.extend_from_slice(&VERSION.to_le_bytes());
        body.extend_from_slice(&next.to_le_bytes());
        body.extend_from_slice(&self.state.newest().number().to_le_bytes());
        let seconds = u64::try_from(begun.as_second()).unwrap_or(0);
        body.extend_from_slice(&seconds.to_le_bytes());
        self.blocks.write(&body)?;
        for segment in self.state.index.segment_names() {
            self.segment(&segment)?;
        }
        self.flows()?;
        self.state.trends.lock().drop_ended();
        let series = self.state.trends.lock().keys();
        for (segment, window) in series {
            self.go_on()?;
            // The lock is held for one series at a time, because the log's writer may wait for it.
            let points = self.state.trends.lock().points(&segment, window);
            self.series(&segment, window, &points)?;
        }
        self.properties()?;
        self.following()?;
        let mut body = vec![END];
        body.extend_from_slice(&self.blocks.blocks().to_le_bytes());
        self.blocks.write(&body)
    }

    fn properties(&mut self) -> Result<(), LogError> {
        let properties = self.state.properties.lock().clone();
        for (name, value) in &properties {
            let mut body = vec![PROPERTY];
            push_property(&mut body, name, Some(value));
            self.blocks.write(&body)?;
        }
        Ok(())
    }

    /// Writes what a replica knows. The index may be ahead of it, which changes nothing: entries can be applied again.
    fn following(&mut self) -> Result<(), LogError> {
        let mut blocks = Vec::new();
        {
            let following = self.state.following.lock();
            if let Some(position) = &following.position {
                let mut body = vec![POSITION];
                following::push_position(&mut body, position);
                blocks.push(body);
            }
            for erasures in following.erasures().chunks(BLOCK_ENTRIES) {
                let mut body = vec![ERASURES];
                body.extend_from_slice(&following.noted_erasures().to_le_bytes());
                body.extend_from_slice(&length(erasures.len()));
                for (fingerprint, erased) in erasures {
                    body.extend_from_slice(&fingerprint.number().to_le_bytes());
                    body.extend_from_slice(&erased.at.to_le_bytes());
                    body.extend_from_slice(&erased.number.to_le_bytes());
                }
                blocks.push(body);
            }
            for (segment, user, erased) in following.erasures_in_segments() {
                let mut body = vec![ERASED_IN];
                body.extend_from_slice(&following.noted_erasures().to_le_bytes());
                push_segment(&mut body, &segment);
                body.push(u8::from(user.is_some()));
                let user = user.unwrap_or(Fingerprint::MIN);
                body.extend_from_slice(&user.number().to_le_bytes());
                body.extend_from_slice(&erased.at.to_le_bytes());
                body.extend_from_slice(&erased.number.to_le_bytes());
                blocks.push(body);
            }
            if following.is_complete || !following.covered.is_empty() {
                let mut body = vec![COVERED];
                let covered = following.covered.iter();
                following::push_covered(&mut body, following.is_complete, covered);
                blocks.push(body);
            }
        }
        // After what is covered, because a segment can be in both.
        for segment in &self.state.following.lock().reset {
            let mut body = vec![RESET];
            push_segment(&mut body, segment);
            blocks.push(body);
        }
        blocks.iter().try_for_each(|body| self.blocks.write(body))
    }

    /// Fails if the snapshot must be abandoned.
    fn go_on(&self) -> Result<(), LogError> {
        if (self.calls.stopped)() {
            return Err(LogError::Closed);
        }
        Ok(())
    }

    fn segment(&mut self, segment: &Segment) -> Result<(), LogError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut page_entries: Vec<Entry> = Vec::new();
        // The bases of the first and the last page of `entries`. The last one serves for all of them.
        let (mut first, mut last) = (Slot::new(0), Slot::new(0));
        let mut from = Some(Fingerprint::MIN);
        while let Some(start) = from {
            self.go_on()?;
            page_entries.clear();
            let index = &self.state.index;
            let page = index.read_page(segment.as_str(), start, &mut page_entries);
            // A segment that a sweep removed meanwhile has no pages left.
            let Some(page) = page else { break };
            let far = page.base.number().saturating_sub(first.number()) > SHARED_BASE;
            if entries.is_empty() || far || entries.len() >= BLOCK_ENTRIES {
                self.entries(segment, last, &mut entries)?;
                first = page.base;
            }
            entries.append(&mut page_entries);
            last = page.base;
            from = page.next;
        }
        self.entries(segment, last, &mut entries)
    }

    fn entries(
        &mut self,
        segment: &Segment,
        base: Slot,
        entries: &mut Vec<Entry>,
    ) -> Result<(), LogError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut body = Vec::with_capacity(160 + entries.len() * 8);
        body.push(ENTRIES);
        push_segment(&mut body, segment);
        body.extend_from_slice(&base.number().to_le_bytes());
        body.extend_from_slice(&length(entries.len()));
        for entry in entries.drain(..) {
            body.extend_from_slice(&entry.to_bits().to_le_bytes());
        }
        self.blocks.write(&body)
    }

    /// Writes who entered and left. After all entries: what is counted after the mark must not be in them.
    fn flows(&mut self) -> Result<(), LogError> {
        self.go_on()?;
        let Some(marked) = (self.calls.mark)()? else {
            return Ok(());
        };
        let mut body = vec![MARK];
        body.extend_from_slice(&marked.at.file.to_le_bytes());
        body.extend_from_slice(&marked.at.offset.to_le_bytes());
        body.extend_from_slice(&marked.layout.window.to_le_bytes());
        body.extend_from_slice(&marked.layout.step.to_le_bytes());
        body.extend_from_slice(&marked.since.number().to_le_bytes());
        body.extend_from_slice(&marked.head.number().to_le_bytes());
        self.blocks.write(&body)?;
        for (segment, flows) in &marked.segments {
            self.go_on()?;
            let flows = flows.saved();
            body.clear();
            body.push(FLOW);
            push_segment(&mut body, segment);
            body.extend_from_slice(&flows.since.to_le_bytes());
            body.extend_from_slice(&flows.head.to_le_bytes());
            push_by_age(&mut body, &flows.slots);
            push_by_age(&mut body, &flows.steps);
            self.blocks.write(&body)?;
        }
        Ok(())
    }

    fn series(&mut self, segment: &Segment, window: u64, points: &[Point]) -> Result<(), LogError> {
        let mut body = vec![TREND];
        push_segment(&mut body, segment);
        body.extend_from_slice(&window.to_le_bytes());
        body.extend_from_slice(&length(points.len()));
        for point in points {
            body.extend_from_slice(&point.at.to_le_bytes());
            body.extend_from_slice(&point.users.to_le_bytes());
        }
        self.blocks.write(&body)
    }
}
