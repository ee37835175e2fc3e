//! One client's view of the events: a position and a filter.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Place;
use super::ring::{Filter, Told};

/// A silent stream says this often that it lives: proxies close what is silent for a minute, some for 30 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What a client should wait before it comes back, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// A client's place among those that listen; given up when dropped.
#[derive(Debug)]
pub struct Subscription {
    place: Place,
    position: u64,
    filter: Filter,
    next: watch::Receiver<u64>,
    begun: bool,
}

impl Subscription {
    pub(super) fn new(place: Place, last_id: Option<&str>, filter: Filter) -> Self {
        let position = {
            let ring = place.events.ring.read();
            last_id.map_or(ring.next(), |id| ring.after(id))
        };
        Self {
            position,
            filter,
            next: place.events.next.subscribe(),
            begun: false,
            place,
        }
    }

    /// The next piece of the stream, as soon as there is one: events, a reset, or a sign of life. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> String {
        if !self.begun {
            self.begun = true;
            return self.opening();
        }
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            self.next.mark_unchanged();
            let told = {
                let ring = self.place.events.ring.read();
                ring.read(&mut self.position, &self.filter)
            };
            match told {
                Told::Text(text) => return text,
                Told::Lost => return self.reset(),
                Told::Nothing => {}
            }
            // The sender lives as long as this does.
            if timeout_at(heartbeat, self.next.changed()).await.is_err() {
                return self.with_id(":\n");
            }
        }
    }

    /// Has no event: it makes proxies pass on the head, and gives a client that hears of nothing a place to come
    /// back to.
    fn opening(&self) -> String {
        let retry = format!("retry: {RETRY_MS}\n");
        match self.position {
            // Came back to nowhere: a reset follows.
            0 => retry + "\n",
            _ => self.with_id(&retry),
        }
    }

    fn reset(&self) -> String {
        self.place.events.metrics.events.resets.inc();
        // Browsers drop events without data.
        self.with_id("event: reset\ndata: {}\n")
    }

    /// A filtered client that hears of nothing moves on too: it should not be lost when it comes back.
    fn with_id(&self, lines: &str) -> String {
        let mut text = lines.to_owned();
        self.place
            .events
            .ring
            .read()
            .write_id(&mut text, self.position);
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::Events;
    use domain::Reach;
    use domain::{Count, Segment, Timestamp};

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_says_that_it_lives_and_how_far_it_came() {
        let events = Arc::new(Events::new(1, Arc::default()));
        let segment = |name| Segment::new(name).unwrap();
        let filter = Filter::new(vec![segment("heard")], Reach::every());
        let mut subscription = events.subscribe(None, filter).await.unwrap();
        let opening = subscription.next().await;
        let count = Count {
            users: 1,
            as_of: Timestamp::UNIX_EPOCH,
        };
        events.publish(&[(segment("unheard"), count)]);
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
