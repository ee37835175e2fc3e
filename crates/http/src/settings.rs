//! The options of the HTTP server.

use std::time::Duration;

use crate::networks::Networks;
use domain::Secret;

/// Which web pages of other origins may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {
    /// None.
    Off,
    /// All.
    Any,
    /// Those of these origins, as browsers write them.
    Of(Vec<String>),
}

/// Limits of the HTTP server.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Which web pages of other origins may ask.
    pub cors: Cors,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Networks,
    /// Most bytes of a body after decompression.
    pub max_body: u64,
    /// Most connections open at once.
    pub max_connections: usize,
    /// Most clients of /v1/events at once.
    pub max_event_clients: usize,
    /// Most of them with one token.
    pub max_event_clients_per_token: usize,
    /// The key that sessions of the page are sealed under; without one, each process has its own.
    pub session_key: Option<Secret>,
    /// Longest time for a request's head to arrive.
    pub header_timeout: Duration,
    /// Longest time between two requests on a connection of HTTP/1.
    pub idle_timeout: Duration,
    /// How long requests are still accepted once the service was told to stop.
    pub shutdown_delay: Duration,
    /// Longest time for requests under way to finish after that.
    pub shutdown_grace: Duration,
}
