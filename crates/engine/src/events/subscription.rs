//! The subscription of one client to the events: a position and a filter.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::ClientPermit;
use super::ring::{Filter, ReadResult};

/// The interval of heartbeats in an idle stream. Proxies close a connection that is idle for a minute, some after 30 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The reconnection delay that is sent to clients, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// A client's subscription. Dropping it releases the client's permit.
#[derive(Debug)]
pub struct Subscription {
    permit: ClientPermit,
    position: u64,
    filter: Filter,
    next: watch::Receiver<u64>,
    begun: bool,
}

impl Subscription {
    pub(super) fn new(permit: ClientPermit, last_id: Option<&str>, filter: Filter) -> Self {
        let position = {
            let ring = permit.events.ring.read();
            last_id.map_or(ring.next(), |id| ring.after(id))
        };
        Self {
            position,
            filter,
            next: permit.events.next.subscribe(),
            begun: false,
            permit,
        }
    }

    /// Waits for the next chunk of the stream: events, a reset, or a heartbeat. This is cancel-safe: dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> String {
        if !self.begun {
            self.begun = true;
            return self.opening();
        }
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            self.next.mark_unchanged();
            let read = {
                let ring = self.permit.events.ring.read();
                ring.read(&mut self.position, &self.filter)
            };
            match read {
                ReadResult::Events(chunk) => return chunk,
                ReadResult::Lost => return self.reset(),
                ReadResult::Nothing => {}
            }
            // The sender is never dropped first, because `permit` holds it.
            if timeout_at(heartbeat, self.next.changed()).await.is_err() {
                return self.with_id(":\n");
            }
        }
    }

    /// The first chunk, without events. It makes proxies forward the response head, and gives the client an id to reconnect
    /// with even if it receives no event.
    fn opening(&self) -> String {
        let retry = format!("retry: {RETRY_MS}\n");
        match self.position {
            // The position of the client is lost, so a reset follows.
            0 => retry + "\n",
            _ => self.with_id(&retry),
        }
    }

    fn reset(&self) -> String {
        self.permit.events.metrics.events.resets.inc();
        // Browsers ignore events without data.
        self.with_id("event: reset\ndata: {}\n")
    }

    /// Appends an id line to `lines`. So the id of a client advances also past events that its filter excludes, and its
    /// position is not lost when it reconnects.
    fn with_id(&self, lines: &str) -> String {
        let mut chunk = lines.to_owned();
        self.permit
            .events
            .ring
            .read()
            .write_id(&mut chunk, self.position);
        chunk.push('\n');
        chunk
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::{Change, Events};
    use domain::Reach;
    use domain::{Covered, Segment, Timestamp};

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_says_that_it_lives_and_how_far_it_came() {
        let events = Arc::new(Events::new(1, Arc::default()));
        let segment = |name| Segment::new(name).unwrap();
        let filter = Filter::new(vec![segment("heard")], Reach::every());
        let mut subscription = events.subscribe(None, filter).await.unwrap();
        let opening = subscription.next().await;
        let change = Change {
            segment: segment("unheard"),
            users: Some(1),
            as_of: Timestamp::UNIX_EPOCH,
            flow: None,
        };
        events.publish(&[change], |_| Covered::default());
        let mut ids = vec![opening];
        for _ in 0..2 {
            let began = Instant::now();
            let sign = subscription.next().await;
            assert_eq!(began.elapsed(), HEARTBEAT);
            ids.push(sign.strip_prefix(":\n").unwrap().to_owned());
        }
        ids[0] = ids[0].split_once('\n').unwrap().1.to_owned();
        assert!(ids.iter().all(|id| id.starts_with("id: ")), "{ids:?}");
        assert_ne!(ids[0], ids[1], "events that were filtered out are behind");
        assert_eq!(ids[1], ids[2]);
    }
}
