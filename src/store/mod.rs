//! The adapters of the port [`PairStore`](domain::store::PairStore).

pub mod embedded;
pub mod influx;
mod observed;
pub mod postgres;
pub mod redis;
mod user_key;

pub use observed::ObservedStore;
