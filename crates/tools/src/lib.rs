//! Commands that work on stores without a running service: copies from one store to another, and audits.

pub mod audit;
pub mod transfer;
