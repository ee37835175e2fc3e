//! Opens the cache that the settings select.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{CacheKind, Settings};
use domain::cache::{CacheError, CountCache};
use stores::memory::MemoryCache;
use stores::redis::cache::{RedisCache, RedisCacheOptions};

/// Opens the configured cache.
pub fn open_cache(settings: &Settings) -> Result<Arc<dyn CountCache>, CacheError> {
    match settings.cache.kind {
        CacheKind::Memory => Ok(Arc::new(MemoryCache::default())),
        CacheKind::Redis => {
            let Some(redis) = settings.cache.redis.clone() else {
                return Err(CacheError::Misconfigured("redis_url is missing".to_owned()));
            };
            let window = Duration::from_secs(settings.frame.full_window().seconds());
            let options =
                RedisCacheOptions::new(redis.server, redis.prefix, settings.cache.ttl, window);
            Ok(Arc::new(RedisCache::open(options)?))
        }
    }
}
