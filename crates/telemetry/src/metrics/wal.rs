use std::time::Duration;

use prometheus_client::metrics::histogram::exponential_buckets;

use super::kinds::{Buckets, Counter, Counters, FloatGauge, Gauge, Histogram, area};

area! {
    /// The write-ahead log and the snapshots that shorten it.
    pub struct Wal {
        fsync_duration: Histogram = "log_fsync_duration",
            "Duration of an fsync of the write-ahead log", Buckets::seconds(exponential_buckets(0.000_05, 2.5, 14));
        fsyncs: Counters<1> = "log_fsyncs",
            "Fsyncs of the write-ahead log, by outcome: ok or failed", ["outcome"];
        group_records: Histogram = "log_group_records",
            "Records that shared an fsync", Buckets::plain(exponential_buckets(1.0, 2.0, 12));
        group_bytes: Histogram = "log_group_bytes",
            "Bytes written per fsync", Buckets::plain(exponential_buckets(64.0, 4.0, 12));
        pub bytes: Gauge = "log_bytes", "Size of the write-ahead log on disk, without snapshots";
        pub snapshot_age: FloatGauge = "snapshot_age_seconds",
            "Time since the latest snapshot; NaN before the first", f64::NAN;
        pub snapshot_failures: Counter = "snapshot_failures",
            "Failed snapshots; the write-ahead log grows until one succeeds";
    }
}

impl Wal {
    /// Records a successful write and fsync of a group.
    pub fn synced(&self, records: usize, bytes: usize, took: Duration) {
        self.fsyncs.with(["ok"]).inc();
        self.fsync_duration.observe(took.as_secs_f64());
        self.group_records.observe(records as f64);
        self.group_bytes.observe(bytes as f64);
    }

    /// Records a failed write or fsync of a group.
    pub fn failed(&self) {
        self.fsyncs.with(["failed"]).inc();
    }
}
