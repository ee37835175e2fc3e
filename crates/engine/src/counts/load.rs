//! Counts that need I/O: from the cache or from the store.

use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::timeouts::{
    MAX_READ_TIMEOUT, QUICK_READ_TIMEOUT, READ_TIMEOUT, UNRESPONSIVE_READ_TIMEOUT,
};
use super::{CountError, CountResult, Counts, Source};
use crate::refresher::{Key, Ticket};
use domain::Count;
use domain::store::StoreError;
use telemetry::traces;

impl Counts {
    /// The count of the cache if it is recent, else the count of the store, or the last known one after a timeout.
    pub(super) async fn load(&self, key: &Key) -> Result<CountResult, CountError> {
        if let Some(live) = &self.parts.live
            && let Some(count) = live.ask_count(&key.0, key.1).await
        {
            return Ok(CountResult::replica(count, key.1));
        }
        self.remember_published(key);
        let reading = tracing::debug_span!(target: traces::TARGET, "cache", operation = "get");
        let cached = self.parts.cache.get(&key.0, key.1);
        let cached = cached.instrument(reading).await;
        if let Ok(Some(cached)) = cached {
            let remembered = self.parts.refresher.remembered();
            remembered.keep(&key.0, key.1, cached);
            if self.is_recent(cached.as_of) {
                return Ok(self.latest(key, CountResult::cached(cached, key.1)));
            }
        }
        if cached.is_err() {
            self.parts.metrics.counts.cache_fallbacks.inc();
        }
        let counted = match self.parts.refresher.remembered().get(key) {
            None => self.count_without_fallback(key).await,
            Some(kept) if self.is_as_good_as_cached(key, kept.count) => {
                return Ok(self.renewed(key, kept.count, cached.is_err()).await);
            }
            Some(_) => self.count_with_fallback(key).await,
        };
        counted.or_else(|error| self.last(key, false, error))
    }

    /// Whether `known` may be served although the cache lacks it. That excludes a segment that left the list, because it
    /// has no users any more, and an empty segment, because it may just have received its first users.
    fn is_as_good_as_cached(&self, key: &Key, known: Count) -> bool {
        let is_listed = self.parts.refresher.names().knows(&key.0);
        is_listed && known.users > 0 && self.is_recent(known.as_of)
    }

    /// A count that begins now. The fallback, the last known count, is marked stale.
    pub(super) async fn load_fresh(&self, key: &Key) -> Result<CountResult, CountError> {
        let lane = self.parts.refresher.lane_of(&key.0, key.1);
        let ticket = self.parts.refresher.recounts().request_fresh(key, lane);
        let counted = self.counted_patiently(ticket, key).await;
        counted.or_else(|error| self.last(key, true, error))
    }

    /// Remembers the count as it was last published, if counts are live. It is as good as a cached one.
    fn remember_published(&self, key: &Key) {
        let live = self.parts.live.as_ref();
        if let Some(count) = live.and_then(|live| live.last_known(&key.0, key.1)) {
            self.parts.refresher.remembered().keep(&key.0, key.1, count);
        }
    }

    /// The later of `cached` and the remembered count. The cache may lack the later one because it was unavailable when the
    /// store counted, and a reader must not get an older count than before.
    fn latest(&self, key: &Key, cached: CountResult) -> CountResult {
        match self.parts.refresher.remembered().get(key) {
            Some(kept)
                if kept.count.as_of > cached.count.as_of && self.is_recent(kept.count.as_of) =>
            {
                CountResult::remembered(kept.count, key.1)
            }
            _ => cached,
        }
    }

    /// Requests the store's count of `key`, in the lane of a reader.
    pub(super) fn request(&self, key: &Key) -> Ticket {
        let lane = self.parts.refresher.lane_of(&key.0, key.1);
        self.parts.refresher.recounts().request(key, lane)
    }

    /// The count of the store, where no earlier count is known.
    async fn count_without_fallback(&self, key: &Key) -> Result<CountResult, StoreError> {
        self.counted_patiently(self.request(key), key).await
    }

    /// The count of `ticket`, with the longest timeout, or a short one while the store does not respond to probes.
    async fn counted_patiently(
        &self,
        ticket: Ticket,
        key: &Key,
    ) -> Result<CountResult, StoreError> {
        let probe = &self.parts.probes.store;
        tokio::select! {
            counted = counted(ticket, key, Instant::now() + MAX_READ_TIMEOUT) => counted,
            () = probe.unresponsive_for(UNRESPONSIVE_READ_TIMEOUT) => Err(StoreError::Timeout("the store does not respond".to_owned())),
        }
    }

    /// The count of the store, where the last known count is too old. Does not wait if the store just timed out.
    async fn count_with_fallback(&self, key: &Key) -> Result<CountResult, StoreError> {
        let recounts = self.parts.refresher.recounts();
        let timed_out = |reason: &str| Err(StoreError::Timeout(reason.to_owned()));
        if recounts.timed_out_recently(key) {
            return timed_out("a count timed out a moment ago");
        }
        let are_stuck = recounts.are_stuck_for(READ_TIMEOUT);
        let ticket = self.request(key);
        if are_stuck {
            return timed_out("all running counts take too long");
        }
        let deadline = ticket.requested_at + READ_TIMEOUT;
        counted(ticket, key, deadline).await
    }

    /// A newer count than `known`, which is recent and which the cache lacks; or `known`, if the store can't start to count
    /// at once or times out. While the cache is unavailable readers are the only ones to renew the count, with a short
    /// timeout.
    async fn renewed(&self, key: &Key, known: Count, is_cache_unavailable: bool) -> CountResult {
        let result = CountResult::remembered(known, key.1);
        let is_new = is_cache_unavailable && self.is_within(known.as_of, self.parts.renew_after);
        if is_new || self.parts.refresher.recounts().timed_out_recently(key) {
            return result;
        }
        let ticket = self.request(key);
        if !ticket.runs() {
            return result;
        }
        let timeout = match is_cache_unavailable {
            true => QUICK_READ_TIMEOUT,
            false => READ_TIMEOUT,
        };
        let deadline = Instant::now() + timeout;
        counted(ticket, key, deadline).await.unwrap_or(result)
    }

    /// The last known count, or `error` if there is none. It is stale unless it is recent; if the caller requested a `fresh`
    /// count, it is always stale.
    fn last(&self, key: &Key, fresh: bool, error: StoreError) -> Result<CountResult, CountError> {
        self.remember_published(key);
        let Some(kept) = self.parts.refresher.remembered().get(key) else {
            return Err(CountError(error));
        };
        let stale = fresh || !self.is_recent(kept.count.as_of);
        if stale {
            self.parts.metrics.counts.stale_answers.inc();
        }
        Ok(CountResult {
            stale,
            ..CountResult::remembered(kept.count, key.1)
        })
    }
}

async fn counted(
    mut ticket: Ticket,
    key: &Key,
    deadline: Instant,
) -> Result<CountResult, StoreError> {
    let recount = timeout_at(deadline, ticket.recount()).await;
    let recount = recount.unwrap_or_else(|_| {
        // The count continues, whether it still waits for a permit or takes long.
        match ticket.runs() {
            true => Err(StoreError::Timeout(
                "the count did not complete in time".to_owned(),
            )),
            false => Err(StoreError::Busy(
                "the count did not start in time".to_owned(),
            )),
        }
    })?;
    Ok(CountResult {
        count: recount.count,
        window: key.1,
        source: Source::Store,
        stale: false,
    })
}
