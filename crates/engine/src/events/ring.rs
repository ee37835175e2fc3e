//! A ring buffer of the latest events, each rendered once for all clients in the format of server-sent events.

use std::collections::VecDeque;
use std::fmt::Write;

use serde::Serialize;

use super::Change;
use domain::{Covered, Reach, Segment};

/// The maximum number of events, at about 150 bytes each. It is three times the default of `max_segments`, so that the
/// events of one comparison fit even if all segments changed.
const CAPACITY: usize = 32_768;
/// A chunk for one client ends with the event that makes it at least this long. HTTP/1 queues up to 16 chunks for a client
/// that does not read, so such a client costs about 40 KiB.
const CHUNK_BYTES: usize = 2 * 1024;

/// Selects the events of a client.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The requested segments; empty means all.
    segments: Vec<Segment>,
    /// The segments that its token allows.
    reach: Reach,
}

impl Filter {
    /// Passes `segments`, or all segments if there are none, but only those within `reach`.
    pub fn new(mut segments: Vec<Segment>, reach: Reach) -> Self {
        segments.sort_unstable();
        segments.dedup();
        Self { segments, reach }
    }

    fn passes(&self, segment: &Segment) -> bool {
        let is_requested = self.segments.is_empty() || self.segments.binary_search(segment).is_ok();
        is_requested && self.reach.covers(segment.as_str())
    }
}

/// Numbered events in order. When it is full, the oldest are evicted.
#[derive(Debug)]
pub(super) struct Ring {
    /// Identifies this run of this instance, because event numbers are valid only within it.
    epoch: u64,
    events: VecDeque<(Segment, Box<str>)>,
    /// The number of the oldest event. Never 0, because the position 0 is always lost.
    first: u64,
}

#[derive(Serialize)]
struct Data<'a> {
    segment: &'a str,
    users: Option<u64>,
    as_of: String,
    covered_since: Option<String>,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    entered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

/// The result of a read at a client's position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadResult {
    /// New events, rendered.
    Events(String),
    /// The client missed events.
    Lost,
    /// No new events.
    Nothing,
}

impl Ring {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            events: VecDeque::new(),
            first: 1,
        }
    }

    /// The number of the next event.
    pub(super) fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    pub(super) fn push(&mut self, change: &Change, covered: Covered) {
        let segment = &change.segment;
        let id = self.id(self.next());
        let data = Data {
            segment: segment.as_str(),
            users: change.users,
            as_of: change.as_of.to_string(),
            covered_since: covered.since.map(|since| since.to_string()),
            complete: covered.complete,
            entered: change.flow.map(|flow| flow.entered),
            left: change.flow.map(|flow| flow.left),
        };
        // A map from strings to strings and numbers always serialises.
        let data = serde_json::to_string(&data).unwrap_or_default();
        if self.events.len() == CAPACITY {
            self.events.pop_front();
            self.first += 1;
        }
        let event = format!("id: {id}\nevent: count\ndata: {data}\n\n");
        self.events.push_back((segment.clone(), event.into()));
    }

    /// Drops all events. Every earlier position is lost.
    pub(super) fn forget(&mut self) {
        self.first = self.next() + 1;
        self.events.clear();
    }

    /// Reads the events from `position` on, and advances `position`.
    pub(super) fn read(&self, position: &mut u64, filter: &Filter) -> ReadResult {
        let next = self.next();
        if *position < self.first || *position > next {
            *position = next;
            return ReadResult::Lost;
        }
        let mut chunk = String::new();
        let skipped = usize::try_from(*position - self.first).unwrap_or(usize::MAX);
        for (segment, event) in self.events.iter().skip(skipped) {
            *position += 1;
            if filter.passes(segment) {
                chunk.push_str(event);
            }
            if chunk.len() >= CHUNK_BYTES {
                break;
            }
        }
        match chunk.is_empty() {
            true => ReadResult::Nothing,
            false => ReadResult::Events(chunk),
        }
    }

    /// The id of event `number`.
    fn id(&self, number: u64) -> String {
        format!("{:016x}-{number}", self.epoch)
    }

    /// The position after the event with this id. A lost position if the id is malformed or of another run.
    pub(super) fn after(&self, id: &str) -> u64 {
        let number = id
            .rsplit_once('-')
            .and_then(|(_, number)| number.parse::<u64>().ok());
        match number {
            Some(number) if self.id(number) == id => number.saturating_add(1),
            _ => 0,
        }
    }

    /// Appends the id line with which a client reconnects at `position`.
    pub(super) fn write_id(&self, output: &mut String, position: u64) {
        // Writing to a string never fails.
        let _ = writeln!(output, "id: {}", self.id(position.saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Flow, Timestamp};

    fn segment(name: &str) -> Segment {
        Segment::new(name).unwrap()
    }

    fn change(name: &str, users: u64) -> Change {
        Change {
            segment: segment(name),
            users: Some(users),
            as_of: Timestamp::UNIX_EPOCH,
            flow: None,
        }
    }

    /// The users in the events that a reader at `position` gets until none are left.
    fn users(ring: &Ring, position: &mut u64, filter: &Filter) -> Vec<u64> {
        let mut found = Vec::new();
        while let ReadResult::Events(chunk) = ring.read(position, filter) {
            let data = chunk.lines().filter_map(|line| line.strip_prefix("data: "));
            found.extend(data.map(|data| {
                let data: serde_json::Value = serde_json::from_str(data).unwrap();
                data["users"].as_u64().unwrap()
            }));
        }
        found
    }

    #[test]
    fn an_event_is_told_once_under_its_id() {
        let mut ring = Ring::new(0xab);
        let mut position = ring.next();
        let entered_and_left = Change {
            flow: Some(Flow {
                entered: 5,
                left: 2,
            }),
            ..change("a \"b\"", 3)
        };
        ring.push(&entered_and_left, Covered::default());
        assert_eq!(
            ring.read(&mut position, &Filter::default()),
            ReadResult::Events(
                "id: 00000000000000ab-1\nevent: count\n\
                 data: {\"segment\":\"a \\\"b\\\"\",\"users\":3,\"as_of\":\"1970-01-01T00:00:00Z\",\
                 \"covered_since\":null,\"complete\":false,\"entered\":5,\"left\":2}\n\n"
                    .into()
            )
        );
        assert_eq!(
            ring.read(&mut position, &Filter::default()),
            ReadResult::Nothing
        );
    }

    #[test]
    fn who_was_here_goes_on_where_they_were_and_others_are_lost() {
        let mut ring = Ring::new(7);
        (1..=5).for_each(|n| ring.push(&change("a", n), Covered::default()));
        let all = Filter::default();
        let mut position = ring.after("0000000000000007-2");
        assert_eq!(users(&ring, &mut position, &all), [3, 4, 5]);
        for id in [
            "",
            "7-2",
            "0000000000000008-2",
            "0000000000000007-6",
            "0000000000000007-02",
            "é",
        ] {
            let mut position = ring.after(id);
            assert_eq!(ring.read(&mut position, &all), ReadResult::Lost, "{id}");
            assert_eq!(ring.read(&mut position, &all), ReadResult::Nothing, "{id}");
        }
    }

    #[test]
    fn who_falls_behind_is_lost_and_then_up_to_date() {
        let mut ring = Ring::new(7);
        let (all, mut slow, mut lost) = (Filter::default(), ring.next(), ring.next());
        for n in 0..CAPACITY as u64 {
            ring.push(&change("a", n), Covered::default());
        }
        assert_eq!(users(&ring, &mut slow, &all).len(), CAPACITY);
        ring.push(&change("a", 1), Covered::default());
        assert_eq!(ring.events.len(), CAPACITY);
        assert_eq!(users(&ring, &mut slow, &all), [1]);
        assert_eq!(ring.read(&mut lost, &all), ReadResult::Lost);
        ring.forget();
        assert_eq!(ring.read(&mut slow, &all), ReadResult::Lost);
        ring.push(&change("a", 2), Covered::default());
        assert_eq!(users(&ring, &mut slow, &all), [2]);
        assert_eq!(ring.read(&mut lost, &all), ReadResult::Lost);
    }

    #[test]
    fn a_filter_passes_what_it_names() {
        let mut ring = Ring::new(7);
        let mut position = ring.next();
        for (name, n) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
            ring.push(&change(name, n), Covered::default());
        }
        let requested = vec![segment("c"), segment("a"), segment("c")];
        let filter = Filter::new(requested, Reach::every());
        assert_eq!(users(&ring, &mut position, &filter), [1, 3, 4]);
        assert_eq!(position, ring.next());
        let bound = Filter::new(Vec::new(), Reach::of(["b"]).unwrap());
        assert_eq!(
            users(&ring, &mut 1, &bound),
            [2],
            "all that its token allows"
        );
    }

    #[test]
    fn texts_are_short() {
        let mut ring = Ring::new(7);
        let mut position = ring.next();
        let name = "\"".repeat(128);
        (0..1000).for_each(|n| ring.push(&change(&name, n), Covered::default()));
        while let ReadResult::Events(chunk) = ring.read(&mut position, &Filter::default()) {
            assert!(chunk.len() < CHUNK_BYTES + 512);
        }
    }
}
