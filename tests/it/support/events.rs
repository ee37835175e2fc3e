//! A client of /v1/events.

use std::time::Duration;

use serde_json::Value;

/// Changes arrive within a second. A busy machine may need much longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// An event, or a comment: a heartbeat, or the start of the stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    pub id: String,
    /// Empty for a comment.
    pub event: String,
    pub data: Value,
}

/// An open stream.
pub struct Listener {
    response: reqwest::Response,
    text: String,
}

impl Listener {
    /// Opens the stream at `url`, which must return 200, and waits for its first part.
    pub async fn open(url: &str, last_id: Option<&str>) -> Self {
        let headers: Vec<_> = last_id
            .map(|id| ("last-event-id", id))
            .into_iter()
            .collect();
        Self::open_with(url, &headers).await
    }

    /// The same with headers.
    pub async fn open_with(url: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut request = reqwest::Client::new().get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        let mut listener = Self {
            response,
            text: String::new(),
        };
        let first = listener.next_block().await.unwrap();
        assert_eq!(first.event, "", "the stream starts without an event");
        listener
    }

    /// The next event or comment, or `None` at the end of the stream.
    pub async fn next_block(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = parse(block);
                self.text = rest.to_owned();
                return Some(event);
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk()).await;
            let chunk = chunk.expect("the stream was silent").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event.
    pub async fn event(&mut self) -> Event {
        let event = self.event_within(DEADLINE).await;
        event.expect("the stream had only heartbeats")
    }

    /// The next event, or `None` if none arrives in this time.
    pub async fn event_within(&mut self, time: Duration) -> Option<Event> {
        let event = async {
            loop {
                let block = self.next_block().await.expect("the stream ended");
                if !block.event.is_empty() {
                    return block;
                }
            }
        };
        tokio::time::timeout(time, event).await.ok()
    }

    /// The segment and the users of the next event, which must be a count.
    pub async fn count(&mut self) -> (String, u64) {
        let event = self.event().await;
        assert_eq!(event.event, "count", "{event:?}");
        assert!(event.data["as_of"].as_str().unwrap().ends_with('Z'));
        let segment = event.data["segment"].as_str().unwrap().to_owned();
        (segment, event.data["users"].as_u64().unwrap())
    }

    /// Waits for a count of `segment` with this number of users. Other counts may precede it.
    pub async fn wait_for(&mut self, segment: &str, users: u64) {
        while self.count().await != (segment.to_owned(), users) {}
    }
}

fn parse(block: &str) -> Event {
    let mut event = Event::default();
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => event.id = id.to_owned(),
            Some(("event", name)) => event.event = name.to_owned(),
            Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
            Some(("retry", _)) => {}
            _ => assert!(line.starts_with(':'), "{line:?}"),
        }
    }
    event
}
