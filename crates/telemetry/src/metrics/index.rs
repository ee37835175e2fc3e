use super::kinds::{Gauge, area};

area! {
    /// The last-seen index of the embedded store.
    pub struct Index {
        pub segments: Gauge = "segments", "Segments in the index";
        pub pairs: Gauge = "pairs", "Pairs of user and segment in the index";
        pub bytes: Gauge = "index_bytes", "Memory allocated by the index";
    }
}
