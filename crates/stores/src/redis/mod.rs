//! The Redis client that the cache and the store share: addresses, a connection that reconnects itself, and requests.
//!
//! The cache and the store set the timeouts of their [`Client`], and convert its errors to their own.

mod breaker;
pub mod cache;
mod chunks;
mod client;
mod connection;
mod error;
pub mod feed;
mod hash_tag;
mod outage_log;
pub mod published;
mod reconnect;
mod request;
mod server;
pub mod store;

pub use server::{InvalidPrefix, InvalidRedisUrl, Prefix, RedisServer};

pub(crate) use chunks::ChunkLimits;
pub(crate) use client::{Client, ClientOptions};
pub(crate) use error::ClientError;
pub(crate) use hash_tag::hash_tag;
pub(crate) use request::{Request, Script};
