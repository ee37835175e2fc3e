//! An in-memory disk for tests, with injectable faults, limited space and crashes.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

/// An in-memory disk. Clones share it; [`MemDisk::crash`] creates another one.
#[derive(Debug, Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes to names since the last sync of a directory.
    pending: Vec<NameChange>,
    faults: Faults,
}

/// The faults of a [`MemDisk`].
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The number of bytes that can still be written.
    pub room: Option<u64>,
    /// The maximum number of bytes of one write.
    pub longest_write: Option<usize>,
    /// Syncs of files fail.
    pub sync: bool,
    /// Syncs of directories fail.
    pub sync_dir: bool,
    /// Truncations fail.
    pub truncate: bool,
    /// Writes fail with an error other than a full disk.
    pub write: bool,
    /// The number of operations of any kind that succeed before one fails. Later ones succeed again.
    pub once: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    /// The durable contents.
    synced: Vec<u8>,
    /// The contents that readers see.
    data: Vec<u8>,
    /// The ranges that the next sync makes durable. A failed sync clears them, as kernels do.
    dirty: Vec<Range<usize>>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Remove(PathBuf),
    Move(PathBuf, PathBuf),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Set(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Move(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl MemDisk {
    /// Sets the faults of all following operations.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Whether the single fault of [`Faults::once`] has happened.
    pub fn has_failed_once(&self) -> bool {
        self.state.lock().faults.once.is_none()
    }

    /// The disk after a crash of the machine now: any part of the unsynced data is lost. Returns a new disk; users of
    /// this one can't access it.
    pub fn crash(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let state = self.state.lock();
        let mut names = state.durable_names.clone();
        // Journals keep the order of changes to names.
        let survived = random.usize(0..=state.pending.len());
        for change in &state.pending[..survived] {
            change.apply(&mut names);
        }
        let files = state
            .files
            .iter()
            .map(|file| file.torn(&mut random))
            .collect();
        Self::with(files, names)
    }

    /// The disk after the process is killed now. The machine keeps running: nothing is lost, and nothing is synced.
    pub fn kill(&self) -> Self {
        let state = self.state.lock();
        let files = state.files.to_vec();
        Self::with(files, state.names.clone())
    }

    fn with(files: Vec<Content>, names: BTreeMap<PathBuf, usize>) -> Self {
        let state = State {
            files,
            durable_names: names.clone(),
            names,
            pending: Vec::new(),
            faults: Faults::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The bytes of a file.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state.lock();
        state.files[state.names[path]].data.clone()
    }

    /// Creates a file with durable contents.
    pub fn put(&self, path: &Path, data: Vec<u8>) {
        let mut state = self.state.lock();
        let file = state.files.len();
        state.files.push(Content::durable(data));
        state.names.insert(path.to_path_buf(), file);
        state.durable_names.insert(path.to_path_buf(), file);
    }
}

impl Content {
    fn durable(data: Vec<u8>) -> Self {
        Self {
            synced: data.clone(),
            data,
            dirty: Vec::new(),
        }
    }

    fn sync(&mut self) {
        self.synced.resize(self.data.len(), 0);
        for range in self.dirty.drain(..) {
            let range = range.start.min(self.data.len())..range.end.min(self.data.len());
            self.synced[range.clone()].copy_from_slice(&self.data[range]);
        }
    }

    fn torn(&self, random: &mut fastrand::Rng) -> Self {
        let (synced, data) = (&self.synced, &self.data);
        let torn = match random.u8(0..5) {
            0 => synced.clone(),
            1 => data.clone(),
            2 if data.starts_with(synced) => {
                data[..random.usize(synced.len()..=data.len())].to_vec()
            }
            _ => {
                // Pages reach the disk in any order. They are small, so that a group spans several.
                let (short, long) = (synced.len().min(data.len()), synced.len().max(data.len()));
                let mut torn = vec![0; random.usize(short..=long)];
                for start in (0..torn.len()).step_by(16) {
                    let end = (start + 16).min(torn.len());
                    let from = if random.bool() { synced } else { data };
                    for (at, byte) in torn[start..end].iter_mut().enumerate() {
                        *byte = from.get(start + at).copied().unwrap_or(0);
                    }
                }
                torn
            }
        };
        Self::durable(torn)
    }
}

impl Disk for MemDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.step()?;
        let here = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.step()?;
        let file = state.files.len();
        state.files.push(Content::default());
        state.change(NameChange::Set(path.to_path_buf(), file));
        Ok(Box::new(MemFile {
            disk: self.clone(),
            file,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.step()?;
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.change(NameChange::Move(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.change(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        if state.faults.sync_dir {
            return Err(io::Error::other("injected"));
        }
        state.durable_names = state.names.clone();
        state.pending.clear();
        Ok(())
    }
}

impl State {
    /// Called by every operation: returns an error if it is the one that must fail.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.faults.once {
            Some(0) => {
                self.faults.once = None;
                Err(io::Error::other("injected"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    file: usize,
}

impl DiskFile for MemFile {
    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.step()?;
        Ok(state.files[self.file].data.len() as u64)
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.step()?;
        let rest = state.files[self.file]
            .data
            .get(offset as usize..)
            .unwrap_or(&[]);
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.step()?;
        if state.faults.write {
            return Err(io::Error::other("injected"));
        }
        let mut length = bytes
            .len()
            .min(state.faults.longest_write.unwrap_or(usize::MAX));
        if let Some(room) = &mut state.faults.room {
            length = length.min(*room as usize);
            *room -= length as u64;
            if length == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let content = &mut state.files[self.file];
        let (start, end) = (offset as usize, offset as usize + length);
        content.dirty.push(start..end);
        let data = &mut content.data;
        if data.len() < end {
            data.resize(end, 0);
        }
        data[start..end].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.step()?;
        if state.faults.truncate {
            return Err(io::Error::other("injected"));
        }
        state.files[self.file].data.truncate(size as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let fails = state.step().is_err() || state.faults.sync;
        let content = &mut state.files[self.file];
        if fails {
            content.dirty.clear();
            return Err(io::Error::other("injected"));
        }
        content.sync();
        Ok(())
    }
}
