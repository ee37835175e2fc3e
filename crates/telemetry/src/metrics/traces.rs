use super::kinds::{Counters, area, set_total};
use crate::traces;

area! {
    /// Traces.
    pub struct Traces {
        spans: Counters<1> = "trace_spans",
            "Spans by outcome: `sent` to the collector, `failed` (the collector did not take them), `dropped` (too many waited)",
            ["outcome"];
    }
}

impl Traces {
    pub(super) fn update(&self) {
        if !traces::are_on() {
            return;
        }
        let totals = traces::totals();
        set_total(&self.spans.with(["sent"]), totals.sent);
        set_total(&self.spans.with(["failed"]), totals.failed);
        set_total(&self.spans.with(["dropped"]), totals.dropped);
    }
}
