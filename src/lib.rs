//! Exact distinct users per segment, now.
//!
//! The parts of the service are separate crates. This crate contains the settings, the commands, and the wiring that
//! connects both to the parts.

pub mod cli;
pub mod config;
pub mod open_files;
pub mod shutdown;
pub mod wiring;

pub use engine::Headcount;
