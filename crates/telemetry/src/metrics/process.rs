//! Metrics of the process, under the standard names that dashboards expect.
//!
//! The values come from `/proc`. Systems other than Linux have none, and then none of these metrics is rendered.

use std::fmt;
use std::fs;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::kinds::{FloatGauge, Gauge, area};

/// Clock ticks per second (`USER_HZ`) in `/proc`, on every architecture of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

area! {
    struct Rows {
        cpu: Counter<f64, AtomicU64> = "cpu_seconds", "Processor time used, including that in the kernel";
        started: FloatGauge = "start_time_seconds", "Unix time of the start";
        resident: Gauge = "resident_memory_bytes", "Resident memory";
        virtual_memory: Gauge = "virtual_memory_bytes", "Virtual memory";
        open_files: Gauge = "open_fds", "Open files and sockets";
        max_files: Gauge = "max_fds", "Limit of open files and sockets";
        threads: Gauge = "threads", "Threads";
    }
}

/// The metrics of the process, in a separate registry: their prefix differs, and not every system has them.
pub(super) struct Process {
    registry: Registry,
    rows: Rows,
}

/// The values of one read of `/proc`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Snapshot {
    cpu_seconds: f64,
    started: f64,
    resident: u64,
    virtual_memory: u64,
    open_files: u64,
    max_files: u64,
    threads: u64,
}

impl Default for Process {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("process");
        Self {
            rows: Rows::register(&mut registry),
            registry,
        }
    }
}

impl Process {
    /// Appends the metrics as of now.
    pub(super) fn render(&self, text: &mut String) -> fmt::Result {
        let Some(snapshot) = read() else {
            return Ok(());
        };
        let rows = &self.rows;
        rows.cpu.inner().store(
            snapshot.cpu_seconds.to_bits(),
            std::sync::atomic::Ordering::Relaxed,
        );
        rows.started.set(snapshot.started);
        rows.resident.set(snapshot.resident);
        rows.virtual_memory.set(snapshot.virtual_memory);
        rows.open_files.set(snapshot.open_files);
        rows.max_files.set(snapshot.max_files);
        rows.threads.set(snapshot.threads);
        encode_registry(text, &self.registry)
    }
}

fn read() -> Option<Snapshot> {
    let file = |path: &str| fs::read_to_string(path).ok();
    let (stat, status) = (file("/proc/self/stat")?, file("/proc/self/status")?);
    let (limits, system) = (file("/proc/self/limits")?, file("/proc/stat")?);
    // The listing itself opens one descriptor.
    let open = fs::read_dir("/proc/self/fd")
        .ok()?
        .count()
        .saturating_sub(1);
    parse(&stat, &status, &limits, &system, open)
}

fn parse(stat: &str, status: &str, limits: &str, system: &str, open: usize) -> Option<Snapshot> {
    // The program's name, in parentheses, may contain blanks and parentheses. The field after it is the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| {
        let ticks: u32 = fields.get(field - 3)?.parse().ok()?;
        Some(f64::from(ticks))
    };
    let first_after = |text: &str, name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let started: u64 = fields.get(22 - 3)?.parse().ok()?;
    let booted = first_after(system, "btime ")?;
    Some(Snapshot {
        cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
        started: booted as f64 + started as f64 / TICKS_PER_SECOND,
        resident: first_after(status, "VmRSS:")? * 1024,
        virtual_memory: first_after(status, "VmSize:")? * 1024,
        open_files: u64::try_from(open).ok()?,
        // "unlimited" is reported as a value that no process reaches.
        max_files: first_after(limits, "Max open files").unwrap_or(i64::MAX.unsigned_abs()),
        threads: first_after(status, "Threads:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_field_by_field() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1234 1 2 3";
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t   16 kB\nThreads:\t9\n";
        let limits =
            "Limit   Soft Limit  Hard Limit  Units\nMax open files     1024    4096    files\n";
        let snapshot = parse(stat, status, limits, "cpu 1 2\nbtime 1000\n", 12).unwrap();
        let expected = Snapshot {
            cpu_seconds: 2.0,
            started: 1012.34,
            resident: 16 * 1024,
            virtual_memory: 2048 * 1024,
            open_files: 12,
            max_files: 1024,
            threads: 9,
        };
        assert_eq!(snapshot, expected);
        assert_eq!(parse("", status, limits, "", 1), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_them() {
        let mut text = String::new();
        Process::default().render(&mut text).unwrap();
        for name in [
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
            "process_resident_memory_bytes ",
            "process_virtual_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
            "process_threads ",
        ] {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            assert!(line.is_some_and(|value| value != "0"), "{name}: {text}");
        }
    }
}
