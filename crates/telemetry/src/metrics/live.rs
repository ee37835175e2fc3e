use super::kinds::{Counter, FloatGauge, Gauge, area};

area! {
    /// Live counts: the writer to the change feed, and the replica that follows it.
    pub struct Live {
        pub age: FloatGauge = "live_age_seconds",
            "Age of live counts; NaN while counts are not live", f64::NAN;
        pub configured: Gauge = "live_configured", "1 if this process is set up for live counts, 0 if not";
        pub publishes: Gauge = "live_publishes", "1 if this live process publishes the counts, 0 if it stands by";
        pub feed_entries: Gauge = "live_feed_entries", "Entries that the change feed holds";
        pub feed_bytes: Gauge = "live_feed_bytes", "Estimated size of the records that the change feed holds";
        pub complete: Gauge = "live_complete",
            "1 if the replica has every segment, 0 while it reads the store";
        pub unread_segments: Gauge = "live_unread_segments", "Segments that the replica has not read from the store yet";
        pub pairs: Gauge = "live_pairs", "Pairs in the replica, expired ones included";
        pub bytes: Gauge = "live_bytes", "Estimated memory of the replica";
        pub applied_entries: Counter = "live_applied_entries", "Entries of the change feed that the replica applied";
        pub hydrated_pairs: Counter = "live_hydrated_pairs", "Pairs that the replica read from the store";
        pub repairs: Counter = "live_repairs",
            "Reads of recent pairs from the store because entries of the change feed were lost";
        pub audits: Counter = "live_audits", "Segments whose live count was compared with the store's own";
        pub differences: Counter = "live_audit_differences",
            "Segments whose live count differed from the store's, and that were read again";
        pub clamped_records: Counter = "live_clamped_records",
            "Records with pairs in the future of the change feed's clock";
        pub owed_entries: Gauge = "live_owed_entries", "Entries that the change feed does not have yet";
        pub owed_age: FloatGauge = "live_owed_age_seconds",
            "Time since the change feed refused an entry that it still lacks; 0 when it lacks none", 0.0;
        pub resent_entries: Counter = "live_resent_entries", "Entries that were appended again because the change feed lost them";
        pub dropped_entries: Counter = "live_dropped_entries",
            "Entries that the change feed never got, because too many waited";
    }
}
