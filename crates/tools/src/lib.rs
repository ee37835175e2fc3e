//! Commands on stores that need no running service: copying from one store to another, and audits.

pub mod audit;
pub mod transfer;
