//! The adapters of the ports in `domain`: stores of pairs, and caches of counts. Each has options of its own and knows no
//! settings.

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "influx")]
pub mod influx;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
mod user_key;
