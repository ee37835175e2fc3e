//! Logs and metrics.

mod logs;
mod metrics;
mod names;

pub use logs::{InitError, init};
pub use metrics::Metrics;
