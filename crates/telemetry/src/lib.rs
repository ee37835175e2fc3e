//! Logs and metrics.

mod exposition;
mod logs;
mod metrics;
mod names;
mod panics;
mod process;
pub mod version;

pub use logs::{InitError, LogFormat, TelemetrySettings, init};
pub use metrics::Metrics;
