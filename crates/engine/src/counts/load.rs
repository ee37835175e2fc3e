//! A count that takes I/O.

use tokio::time::{Instant, timeout_at};

use super::patience::{GLANCE, LONGEST, PATIENCE};
use super::{Answer, CountError, Counts, Source};
use crate::refresher::{Key, Ticket};
use domain::Count;
use domain::store::StoreError;

impl Counts {
    /// The cache's count while it is recent, else the store's, as far as it is worth waiting for.
    pub(super) async fn load(&self, key: &Key) -> Result<Answer, CountError> {
        let cached = self.parts.cache.get(&key.0, key.1).await;
        if let Ok(Some(cached)) = cached {
            let remembered = self.parts.refresher.remembered();
            remembered.keep(&key.0, key.1, cached.count);
            if self.is_recent(cached.count.as_of) {
                return Ok(self.latest(key, Answer::cached(cached, key.1)));
            }
        }
        if cached.is_err() {
            self.parts.metrics.counts.cache_fallbacks.inc();
        }
        let counted = match self.parts.refresher.remembered().get(key) {
            None => self.count_at_last(key).await,
            Some(kept) if self.is_as_good_as_cached(key, kept.count) => {
                return Ok(self.renewed(key, kept.count, cached.is_err()).await);
            }
            Some(_) => self.count_with_patience(key).await,
        };
        counted.or_else(|error| self.last(key, false, error))
    }

    /// Whether `known` may be answered though the cache lacks it. Not of a segment that left the list, whose users are
    /// gone, and not of one that was empty, which may have just begun.
    fn is_as_good_as_cached(&self, key: &Key, known: Count) -> bool {
        let is_listed = self.parts.refresher.names().knows(&key.0);
        is_listed && known.users > 0 && self.is_recent(known.as_of)
    }

    /// A count that begins now. Any other is called stale.
    pub(super) async fn load_fresh(&self, key: &Key) -> Result<Answer, CountError> {
        let lane = self.parts.refresher.lane_of(&key.0, key.1);
        let ticket = self.parts.refresher.recounts().ask_fresh(key, lane);
        let deadline = Instant::now() + LONGEST;
        let counted = counted(ticket, key, deadline).await;
        counted.or_else(|error| self.last(key, true, error))
    }

    /// `cached`, or what is remembered, if that is later: a cache that was away when the store was counted must not
    /// take a reader back to an older number.
    fn latest(&self, key: &Key, cached: Answer) -> Answer {
        match self.parts.refresher.remembered().get(key) {
            Some(kept)
                if kept.count.as_of > cached.count.as_of && self.is_recent(kept.count.as_of) =>
            {
                Answer::remembered(kept.count, key.1)
            }
            _ => cached,
        }
    }

    /// The store's count of `key`, in the lane of a reader.
    pub(super) fn ask(&self, key: &Key) -> Ticket {
        let lane = self.parts.refresher.lane_of(&key.0, key.1);
        self.parts.refresher.recounts().ask(key, lane)
    }

    /// The store's count where there is nothing else to answer with.
    async fn count_at_last(&self, key: &Key) -> Result<Answer, StoreError> {
        counted(self.ask(key), key, Instant::now() + LONGEST).await
    }

    /// The store's count where the last known one is too old. A store that was silent is not waited for.
    async fn count_with_patience(&self, key: &Key) -> Result<Answer, StoreError> {
        let recounts = self.parts.refresher.recounts();
        let silent = |text: &str| Err(StoreError::Timeout(text.to_owned()));
        if recounts.is_silent(key) {
            return silent("it was silent a moment ago");
        }
        let are_stuck = recounts.are_stuck_for(PATIENCE);
        let ticket = self.ask(key);
        if are_stuck {
            return silent("all counts under way take too long");
        }
        let deadline = ticket.asked + PATIENCE;
        counted(ticket, key, deadline).await
    }

    /// A newer count than `known`, which is recent and which the cache lacks; or that one, if the store can't count at
    /// once. While the cache is unavailable nobody else renews it, and the store gets no more than a glance.
    async fn renewed(&self, key: &Key, known: Count, is_cache_away: bool) -> Answer {
        let answer = Answer::remembered(known, key.1);
        let is_new = is_cache_away && self.is_within(known.as_of, self.parts.renew_after);
        if is_new || self.parts.refresher.recounts().is_silent(key) {
            return answer;
        }
        let ticket = self.ask(key);
        if !ticket.runs() {
            return answer;
        }
        let patience = if is_cache_away { GLANCE } else { PATIENCE };
        let deadline = Instant::now() + patience;
        counted(ticket, key, deadline).await.unwrap_or(answer)
    }

    /// The last known count. It is stale unless it is as recent as one from the cache; any is where it had to be
    /// `fresh`.
    fn last(&self, key: &Key, fresh: bool, error: StoreError) -> Result<Answer, CountError> {
        let Some(kept) = self.parts.refresher.remembered().get(key) else {
            return Err(CountError(error));
        };
        let stale = fresh || !self.is_recent(kept.count.as_of);
        if stale {
            self.parts.metrics.counts.stale_answers.inc();
        }
        Ok(Answer {
            stale,
            ..Answer::remembered(kept.count, key.1)
        })
    }
}

async fn counted(mut ticket: Ticket, key: &Key, deadline: Instant) -> Result<Answer, StoreError> {
    let recount = timeout_at(deadline, ticket.recount()).await;
    let recount = recount.unwrap_or_else(|_| {
        // A count that still waits for its turn, or one that takes long: it goes on.
        let text = "it has more to count than it can in time".to_owned();
        match ticket.runs() {
            true => Err(StoreError::Timeout(text)),
            false => Err(StoreError::Busy(text)),
        }
    })?;
    Ok(Answer {
        count: recount.count,
        window: key.1,
        source: Source::Store,
        // Pairs may have been acknowledged since a count began that was under way.
        pending: recount.pending.filter(|_| !ticket.is_joined),
        stale: false,
    })
}
