use std::borrow::Cow;
use std::time::Duration;

use prometheus_client::metrics::histogram::exponential_buckets;

use super::kinds::{Buckets, Counter, Counters, Gauge, Histograms, area};

area! {
    /// The HTTP server.
    pub struct Http {
        requests: Counters<3> = "http_requests",
            "HTTP requests by route, method and status", ["route", "method", "status"];
        request_duration: Histograms<2> = "http_request_duration",
            "Time from the head of a request to the head of its response, by route and method",
            (["route", "method"], Buckets::seconds(exponential_buckets(0.000_05, 3.0, 13)));
        pub connections: Gauge = "http_connections", "Open connections";
        pub accept_errors: Counter = "http_accept_errors", "Connections that could not be accepted";
        pub connections_abandoned: Counter = "http_connections_abandoned",
            "Connections closed because they were still open when the drain timed out";
        pub panics: Counter = "http_panics", "Panics in request handlers; each is a defect";
    }
}

impl Http {
    /// Records a response. `route` is a template, never a path: a path contains user ids.
    pub fn request(&self, route: &'static str, method: &'static str, status: u16, took: Duration) {
        let status = Cow::from(status.to_string());
        self.requests
            .with([route.into(), method.into(), status])
            .inc();
        let duration = self.request_duration.with([route, method]);
        duration.observe(took.as_secs_f64());
    }
}
