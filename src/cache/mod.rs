//! The adapters of the port [`CountCache`](domain::cache::CountCache).

mod memory;
mod redis;

pub use memory::MemoryCache;
pub use redis::{RedisCache, RedisCacheOptions};
