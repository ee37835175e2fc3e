//! Exact distinct users per segment, now.
//!
//! The parts of the service are crates of their own. Here are its settings, its commands, and the wiring of both to the parts.

pub mod cli;
pub mod config;
pub mod open_files;
pub mod shutdown;
pub mod wiring;

pub use engine::Headcount;
