//! The files that kills left behind: evidence that each kind of interruption occurred.

use std::fmt;
use std::path::Path;

use super::kill_point::names;
use super::ledger::Settled;

/// The size of an empty log file, which has only its header.
const HEADER: u64 = 32;

#[derive(Debug, Default)]
pub struct Coverage {
    pub rounds: usize,
    pub kills: usize,
    /// Kills during a start.
    pub starting: usize,
    /// Kills that left the temporary file of a snapshot.
    snapshot: usize,
    /// Kills that left a snapshot together with files that it replaces.
    clean_up: usize,
    /// Kills that left the temporary file of a new log file.
    rotation: usize,
    /// Kills that left several log files, the newest one empty.
    fresh_file: usize,
    /// Kills that left several log files.
    several_files: usize,
    /// Starts that found the last write incomplete.
    pub torn: usize,
    /// Requests without a response whose changes were on disk: killed between the write and the response.
    kept: usize,
    /// Requests without a response whose changes were not on disk.
    lost: usize,
    pub checks: usize,
    pub pairs: usize,
}

impl Coverage {
    /// Inspects the files that a killed process left.
    pub fn inspect(&mut self, dir: &Path) {
        self.kills += 1;
        let names = names(dir);
        let any = |suffix: &str| names.iter().any(|name| name.ends_with(suffix));
        let sorted = |suffix: &str| {
            let mut of: Vec<&str> = names
                .iter()
                .filter_map(|name| name.strip_suffix(suffix))
                .collect();
            of.sort_unstable();
            of
        };
        let (logs, snapshots) = (sorted(".log"), sorted(".snapshot"));
        self.snapshot += usize::from(any(".snapshot.new"));
        self.rotation += usize::from(any(".log.new"));
        self.several_files += usize::from(logs.len() > 1);
        let is_old = |name: Option<&&str>| name < snapshots.last();
        self.clean_up += usize::from(
            !snapshots.is_empty() && (is_old(logs.first()) || is_old(snapshots.first())),
        );
        if let [_, .., last] = logs[..] {
            let size = std::fs::metadata(dir.join(format!("{last}.log")));
            self.fresh_file += usize::from(size.is_ok_and(|file| file.len() == HEADER));
        }
    }

    pub fn settled(&mut self, settled: &Settled) {
        self.kept += settled.kept;
        self.lost += settled.lost;
    }

    /// Fails unless the rounds covered everything that can be interrupted.
    pub fn assert_coverage(&self, with_snapshots: bool) {
        assert!(self.kept > 0 && self.lost > 0, "{self}");
        assert!(self.starting > 0, "{self}");
        if with_snapshots {
            assert!(self.rotation > 0 && self.fresh_file > 0, "{self}");
            assert!(self.snapshot > 0 && self.clean_up > 0, "{self}");
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            kills,
            starting,
            snapshot,
            clean_up,
            rotation,
            fresh_file,
            several_files,
            torn,
            kept,
            lost,
            checks,
            pairs,
        } = self;
        write!(
            f,
            "{rounds} rounds, {kills} kills: {starting} while starting, {snapshot} within a snapshot, {clean_up} between \
             a snapshot and the end of its clean-up, {rotation} within a rotation, {fresh_file} right after one \
             ({several_files} with several log files), {torn} with a torn write; of the requests without a response {kept} \
             were on disk, {lost} were not; {checks} checks, {pairs} pairs at the end"
        )
    }
}
