//! Logs, metrics, traces, and the version of the build.

mod logs;
pub mod metrics;
mod panics;
pub mod traces;
pub mod version;

pub use logs::{InitError, LogFormat, Telemetry, TelemetrySettings, init};
pub use metrics::{LeftOut, Metrics, SegmentMetrics, SegmentSample, WindowSample};
