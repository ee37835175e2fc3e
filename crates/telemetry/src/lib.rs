//! Logs, metrics, and the version of the build.

mod logs;
pub mod metrics;
mod panics;
pub mod version;

pub use logs::{InitError, LogFormat, TelemetrySettings, init};
pub use metrics::Metrics;
