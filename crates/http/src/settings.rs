//! The options of the HTTP server.

use std::time::Duration;

use serde::Deserialize;

use crate::networks::Networks;
pub use crate::parse::line_protocol::LineNames;
pub use crate::parse::messages::{MessageRules, SegmentSource};
use domain::Secret;

/// Which other origins may read responses in a browser (CORS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {
    /// No other origin.
    Off,
    /// Every origin.
    Any,
    /// These origins, in the form that browsers send, such as `https://example.org`.
    Of(Vec<String>),
}

/// A setting that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Allowed.
    On,
    /// Not allowed.
    Off,
}

/// What pairs are called in the formats of other programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairNames {
    /// In InfluxDB's line protocol.
    pub lines: LineNames,
    /// In messages of analytics libraries.
    pub messages: MessageRules,
}

impl Default for PairNames {
    fn default() -> Self {
        Self {
            lines: LineNames {
                measurement: "pair".to_owned(),
                segment: "segment".to_owned(),
                user: "user".to_owned(),
            },
            messages: MessageRules {
                segment: vec![SegmentSource::Property, SegmentSource::Event],
                merges: true,
            },
        }
    }
}

/// Options of the HTTP server.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Which other origins may read responses in a browser.
    pub cors: Cors,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Networks,
    /// What pairs are called in the formats of other programs.
    pub pair_names: PairNames,
    /// Most bytes of a request body, as received and after decompression.
    pub max_body: u64,
    /// Most connections open at once.
    pub max_connections: usize,
    /// Most clients of /v1/events at once.
    pub max_event_clients: usize,
    /// Most clients of /v1/events at once with one token.
    pub max_event_clients_per_token: usize,
    /// Whether the users of a segment can be listed.
    pub export: Switch,
    /// The key that encrypts sessions of the page. Without it, each process has a random key.
    pub session_key: Option<Secret>,
    /// Timeout of a request head.
    pub header_timeout: Duration,
    /// Timeout between two requests on an HTTP/1 connection.
    pub idle_timeout: Duration,
    /// How long connections are still accepted after the stop signal.
    pub shutdown_delay: Duration,
    /// How long requests in flight may take to finish after that.
    pub shutdown_grace: Duration,
}
