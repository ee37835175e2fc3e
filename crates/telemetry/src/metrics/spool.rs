use super::kinds::{FloatGauge, Gauge, area};

area! {
    /// Pairs on disk that wait for the store.
    pub struct Spool {
        pub pairs: Gauge = "spool_pairs", "Pairs waiting in the spool";
        pub quarantined: Gauge = "spool_quarantined_pairs",
            "Pairs in the spool that the store refused while it accepted others";
        pub bytes: Gauge = "spool_bytes", "Size of the spool on disk";
        pub limit: Gauge = "spool_limit_bytes",
            "Size of the spool from which pairs are refused with 503; 0 without a spool";
        pub oldest_age: FloatGauge = "spool_oldest_age_seconds",
            "Time since the oldest waiting pairs were spooled; 0 when none wait";
    }
}
