//! Redis, as the cache and the store both need it: addresses, a connection that repairs itself, requests.
//!
//! Who uses a [`Link`] decides how patient it is; what it says of a failure is for the user to translate.

mod breaker;
pub mod cache;
mod connection;
mod error;
mod hash_tag;
mod keeper;
mod link;
mod outage_log;
mod pieces;
mod request;
mod server;
pub mod store;

pub use server::{InvalidPrefix, InvalidRedisUrl, Prefix, RedisServer};

pub(crate) use error::LinkError;
pub(crate) use hash_tag::hash_tag;
pub(crate) use link::{Link, LinkOptions};
pub(crate) use pieces::Pieces;
pub(crate) use request::{Request, Script};
