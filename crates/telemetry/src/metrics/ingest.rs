use prometheus_client::metrics::histogram::exponential_buckets;

use super::kinds::{Buckets, Counter, Counters, Gauge, Histogram, area};

area! {
    /// Pairs that clients send.
    pub struct Ingest {
        accepted: Counters<1> = "pairs_accepted", "Pairs written durably, by where: store or spool", ["to"];
        request_pairs: Histogram = "request_pairs",
            "Accepted pairs per request", Buckets::plain(exponential_buckets(1.0, 4.0, 10));
        pub rejected: Counters<1> = "pairs_rejected", "Rejected pairs, by error code", ["code"];
        pub ignored: Counter = "items_ignored",
            "Items that are about something else than pairs: points of other measurements, messages without a segment";
        pub merges: Counters<1> = "merges",
            "Users merged into others, by result: moved, nothing_to_move or failed; known merges that are repeated are not included", ["result"];
        pub merges_known: Gauge = "merges_known", "Merged users within the window, whose pairs count for other users";
        pub queue_pairs: Gauge = "queue_pairs", "Pairs received and not yet durable";
    }
}

impl Ingest {
    /// Records that the pairs of one request are durable, in the store or in the spool.
    pub fn accepted(&self, pairs: usize, spooled: bool) {
        let to = if spooled { "spool" } else { "store" };
        self.accepted.with([to]).inc_by(pairs as u64);
        self.request_pairs.observe(pairs as f64);
    }
}
