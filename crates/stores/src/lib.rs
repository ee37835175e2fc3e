//! The adapters of the ports in `domain`: stores of pairs, caches of counts, and change feeds. Each adapter has its own options and
//! does not depend on the settings of the service.

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "influx")]
pub mod influx;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod installation_key;
#[cfg(feature = "embedded")]
pub mod local_feed;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
mod user_key;
