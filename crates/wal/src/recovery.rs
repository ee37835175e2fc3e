//! Opens a log: replays its files, and repairs the end that a crash left.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::active::{ActiveFile, Fault};
use super::disk::{Disk, UNFINISHED};
use super::format::{GROUP_HEADER, MAX_GROUP};
use super::replay::{Hook, damaged, replay_file};
use super::{Apply, LogError, LogOptions, Position, Start, file_name, file_number};

/// The result of replay, for logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The number of replayed files.
    pub files: u64,
    /// The number of replayed records.
    pub records: u64,
    /// The number of replayed bytes.
    pub bytes: u64,
    /// The torn tail that was truncated, if there was one. It was never acknowledged.
    pub torn: Option<Torn>,
}

/// An incomplete group at the end of the last file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub path: PathBuf,
    /// The offset at which the group started, which is the new end of the file.
    pub offset: u64,
    /// The number of truncated bytes.
    pub bytes: u64,
}

/// The numbers of the log files in `dir`, in order.
pub fn file_numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, LogError> {
    let names = disk
        .list(dir)
        .map_err(|error| LogError::io("list", dir, &error))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| file_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Calls `each` for the records of a file that is not the active one. Returns the number of records.
pub fn read_file(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    mut each: impl FnMut(Position, &[u8]) -> Result<(), String>,
) -> Result<u64, LogError> {
    let mut found = Recovery::default();
    replay_finished(disk, dir, number, &mut each, &mut found)?;
    Ok(found.records)
}

/// Replays a file that is not the last one: it must be complete and end with a seal. Returns its size.
fn replay_finished(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    each: Hook<'_>,
    found: &mut Recovery,
) -> Result<u64, LogError> {
    let (active, walk) = replay_file(disk, dir, number, each, found)?;
    let sealed = active.sealed && walk.last_group.is_some();
    let unsealed = (active.id.version > 1 && !sealed).then_some("the end is missing");
    match walk.bad.or(unsealed) {
        Some(reason) => Err(damaged(&active.path, active.end, reason)),
        None => Ok(active.end),
    }
}

/// Replays the files from `options.start` on, and repairs the end of the last file. Returns that file, ready for writing,
/// and the sizes of all files.
pub(super) fn open(
    dir: &Path,
    options: &LogOptions,
    apply: &mut Apply,
) -> Result<(ActiveFile, BTreeMap<u64, u64>, Recovery), LogError> {
    let disk = options.disk.as_ref();
    remove_unfinished(disk, dir)?;
    let present = file_numbers(disk, dir)?;
    let replayed = select(dir, &present, options.start)?;
    let mut sizes = BTreeMap::new();
    for &number in present.iter().filter(|number| !replayed.contains(number)) {
        sizes.insert(number, size_of(disk, &dir.join(file_name(number)))?);
    }
    let mut found = Recovery::default();
    let Some((&last, finished)) = replayed.split_last() else {
        let active = ActiveFile::create(disk, dir, 1)?;
        sizes.insert(1, active.end);
        return Ok((active, sizes, found));
    };
    for &number in finished {
        let size = replay_finished(disk, dir, number, apply, &mut found)?;
        sizes.insert(number, size);
    }
    let (mut active, walk) = replay_file(disk, dir, last, apply, &mut found)?;
    if let Some(reason) = walk.bad {
        found.torn = Some(truncate_torn_tail(&mut active, walk.size, reason)?);
    }
    rewrite_and_seal(&mut active, walk.last_group)?;
    // The former process may have died before it synced a new name.
    disk.sync_dir(dir)
        .map_err(|error| LogError::io("sync", dir, &error))?;
    sizes.insert(last, active.end);
    Ok((active, sizes, found))
}

/// Selects the files to replay: a sequence without gaps.
fn select(dir: &Path, present: &[u64], start: Start) -> Result<Vec<u64>, LogError> {
    let missing = |number| LogError::Missing {
        path: dir.join(file_name(number)),
    };
    let first = match start {
        Start::Oldest => present.first().copied(),
        Start::At(1) if present.is_empty() => None,
        Start::At(number) => Some(number),
    };
    let Some(first) = first else {
        return Ok(Vec::new());
    };
    let files: Vec<u64> = present
        .iter()
        .copied()
        .filter(|number| *number >= first)
        .collect();
    if files.is_empty() {
        return Err(missing(first));
    }
    for (expected, &number) in (first..).zip(&files) {
        if number != expected {
            return Err(missing(expected));
        }
    }
    Ok(files)
}

/// Truncates the bytes behind the last valid group, unless they are damaged data that was durable.
fn truncate_torn_tail(
    active: &mut ActiveFile,
    size: u64,
    reason: &'static str,
) -> Result<Torn, LogError> {
    let offset = active.end;
    if size - offset > MAX_GROUP {
        return Err(damaged(&active.path, offset, reason));
    }
    let valid =
        find_group(active, size).map_err(|error| LogError::io("read", &active.path, &error))?;
    if let Some(valid) = valid {
        let reason = format!("{reason}, and a valid group follows at byte {valid}");
        return Err(damaged(&active.path, offset, &reason));
    }
    active
        .file
        .truncate(offset)
        .map_err(|error| LogError::io("truncate", &active.path, &error))?;
    active.sync()?;
    Ok(Torn {
        path: active.path.clone(),
        offset,
        bytes: size - offset,
    })
}

/// Finds the first valid group after the invalid one.
///
/// It searches at every byte, because the length in the invalid header may be wrong.
fn find_group(active: &mut ActiveFile, size: u64) -> io::Result<Option<u64>> {
    let mut rest = vec![0; (size - active.end) as usize];
    let read = active.file.read_full_at(&mut rest, active.end)?;
    rest.truncate(read);
    for (at, start) in rest.windows(GROUP_HEADER).enumerate().skip(1) {
        let offset = active.end + at as u64;
        let Some(header) = active.id.group_at(offset, start) else {
            continue;
        };
        let body = rest[at + GROUP_HEADER..].get(..header.length);
        if body.is_some_and(|body| header.matches(body)) {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

/// Makes the contents of the file durable, and seals the file.
fn rewrite_and_seal(
    active: &mut ActiveFile,
    last_group: Option<(u64, Vec<u8>)>,
) -> Result<(), LogError> {
    let Some((start, bytes)) = last_group else {
        return active.sync();
    };
    // This includes a seal: its sync may have failed, and then it is in the page cache only.
    active
        .file
        .write_all_at(&bytes, start)
        .map_err(|error| LogError::io("write", &active.path, &error))?;
    active.sync()?;
    match active.seal() {
        // A full disk must not prevent reads.
        Ok(()) | Err(Fault::Refused(LogError::Full { .. })) => Ok(()),
        Err(Fault::Refused(error) | Fault::Fatal(error)) => Err(error),
    }
}

fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let names = disk
        .list(dir)
        .map_err(|error| LogError::io("list", dir, &error))?;
    for name in names {
        if name
            .strip_suffix(UNFINISHED)
            .and_then(file_number)
            .is_some()
        {
            let path = dir.join(name);
            disk.remove(&path)
                .map_err(|error| LogError::io("remove", &path, &error))?;
        }
    }
    Ok(())
}

fn size_of(disk: &dyn Disk, path: &Path) -> Result<u64, LogError> {
    disk.open(path)
        .and_then(|file| file.size())
        .map_err(|error| LogError::io("open", path, &error))
}
