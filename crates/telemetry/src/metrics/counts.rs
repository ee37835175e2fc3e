use super::kinds::{Buckets, Counter, Counters, FloatGauge, Gauge, Histogram, area};

/// Bucket bounds in seconds, from a second to two hours. They include the default of `cache_ttl`, 15 minutes, so that an
/// alert on counts older than that is exact.
const AGES: [f64; 11] = [
    1.0, 5.0, 15.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
];

area! {
    /// Counts that are served.
    pub struct Counts {
        pub age: Histogram = "count_age", "Age of the counts served", Buckets::seconds(AGES);
        pub cache_fallbacks: Counter = "cache_fallbacks",
            "Operations that continued without the cache because it failed";
        pub complete: Gauge = "counts_complete",
            "Whether counts over the configured window include every pair since its start: 1 or 0";
        pub covered_since: FloatGauge = "covered_since_timestamp_seconds",
            "Unix time since which the store has every pair; NaN while unknown";
        pub lost_pairs: Counters<1> = "lost_pairs",
            "Pairs that are not counted although they were valid, by reason; one that is sent again counts again", ["reason"];
        pub stale_answers: Counter = "stale_answers",
            "Counts served from the last known value because store and cache failed";
    }
}
