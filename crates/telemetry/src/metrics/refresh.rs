use std::time::Duration;

use super::kinds::{Buckets, FloatGauge, Histograms, area};

area! {
    /// Recounts of all segments.
    pub struct Refresh {
        duration: Histograms<1> = "refresh_duration",
            "Duration of a refresh, by outcome", (["outcome"], Buckets::wide_seconds());
        pub last_success: FloatGauge = "refresh_last_success_timestamp_seconds",
            "Unix time of this process's last refresh of all segments without a failure; 0 before the first";
    }
}

impl Refresh {
    /// Records the end of a refresh.
    pub fn ended(&self, outcome: &'static str, took: Duration) {
        self.duration.with([outcome]).observe(took.as_secs_f64());
    }
}
