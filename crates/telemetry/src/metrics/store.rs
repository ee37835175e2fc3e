use std::time::Duration;

use super::kinds::{Buckets, Counter, Counters, Gauges, Histograms, area};

area! {
    /// The store: its calls, and what an adapter reports about its server.
    pub struct Store {
        call_duration: Histograms<2> = "store_call_duration",
            "Duration of a store call by operation and outcome; count is of one segment, count_many of several",
            (["operation", "outcome"], Buckets::wide_seconds());
        pub lines: Counters<1> = "store_lines",
            "Lines sent to a store over the network, by outcome; lost: refused and not in the dead-letter file",
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
    /// Records the end of a call.
    pub fn call(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        let duration = self.call_duration.with([operation, outcome]);
        duration.observe(took.as_secs_f64());
    }

    /// Sets the persistence of the server. Other kinds are no longer rendered.
    pub fn persistence(&self, kind: &'static str) {
        self.persistence.clear();
        self.persistence.with([kind]).set(1);
    }

    /// Sets the number of connections in use for `work`, and of callers that wait for one.
    pub fn connections(&self, work: &'static str, in_use: usize, waiting: usize) {
        self.connections.with([work, "in_use"]).set(in_use as u64);
        self.connections.with([work, "waiting"]).set(waiting as u64);
    }
}
