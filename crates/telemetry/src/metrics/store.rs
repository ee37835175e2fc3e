use std::time::Duration;

use super::kinds::{Buckets, Counter, Counters, Gauges, Histograms, area};

area! {
    /// The store: calls of it, and what an adapter knows of its server.
    pub struct Store {
        call_duration: Histograms<2> = "store_call_duration",
            "Duration of a store call by operation and outcome; count is of one segment, count_many of several",
            (["operation", "outcome"], Buckets::wide_seconds());
        pub lines: Counters<1> = "store_lines",
            "Lines sent to a store over the network, by outcome; lost is refused and not in the dead-letter file",
            ["outcome"];
        pub dead_letters: Counter = "dead_letter_pairs", "Pairs that the store refused permanently";
        pub retries: Counter = "store_retries", "Retries of writes to the store";
        persistence: Gauges<1> = "store_persistence",
            "Persistence that the store's server reports, by kind; 1 for the current one", ["kind"];
        connections: Gauges<2> = "store_connections",
            "Connections to the store in use and callers waiting for one, by work: write or read", ["work", "state"];
    }
}

impl Store {
    /// A call ended.
    pub fn call(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        let duration = self.call_duration.with([operation, outcome]);
        duration.observe(took.as_secs_f64());
    }

    /// How the server keeps what it was told. No other kind is rendered from here on.
    pub fn persistence(&self, kind: &'static str) {
        self.persistence.clear();
        self.persistence.with([kind]).set(1);
    }

    /// Connections that are used for `work`, and callers that wait for one.
    pub fn connections(&self, work: &'static str, in_use: usize, waiting: usize) {
        self.connections.with([work, "in_use"]).set(in_use as u64);
        self.connections.with([work, "waiting"]).set(waiting as u64);
    }
}
