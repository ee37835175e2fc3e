//! The service without HTTP, adapters and settings: ingest, counts, recounts, events.
//!
//! [`Headcount`] combines these parts. It is opened from [`Backends`], which the program implements for its settings.

mod clock_watch;
pub mod counts;
pub mod coverage;
mod erasing;
pub mod events;
pub mod headcount;
pub mod ingest;
mod known_segments;
pub mod live;
mod live_process;
mod observed;
mod options;
pub mod probes;
pub mod readiness;
pub mod refresher;
pub mod rounds;
pub mod segments;
mod sweeper;
mod time_steps;

pub use ::live::writer::OwedLog;
pub use headcount::Headcount;
pub use live_process::{At, Comparison, LiveProcess};
pub use options::{Backends, EngineOptions, LiveParts, Opened, SpoolSettings};
pub use time_steps::FlowSteps;
