//! Exact distinct users per segment, now.

pub mod cache;
pub mod config;
pub mod domain;
pub mod index;
pub mod store;
