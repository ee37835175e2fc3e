//! Keeps the counters of users who entered and left across restarts, so that each is counted once.
//!
//! The counters change when a record is applied, and with time. So they are exact again after a replay if it begins with the
//! counters and the entries of one position of the log, and if the head is where it was at each record:
//! - A snapshot walks over the entries while records are applied, so its entries belong to no position. After the walk
//!   the snapshot appends a record `mark`. The counters are copied when that record is applied, and go into the snapshot with
//!   its position. A replay discards what it counted until then, and continues with the copy.
//! - The head moves with the clock of the callers. A record `head` precedes the first record after it moved.
//!
//! A directory of an earlier version has no counters. They begin when it is opened, which a record `counting` notes
//! before the next one.

use domain::{Flow, Segment, Slot};
use index::{FlowLayout, Flows, Index, SavedFlows};
use wal::{Fields, Position};

/// The state of the counters, beside those in the index.
#[derive(Debug, Default)]
pub(super) struct FlowState {
    /// Whether records are applied for the first time.
    is_live: bool,
    /// Since when everything is counted, if the log or the snapshot says so.
    counting: Option<Slot>,
    /// Those of the snapshot that was loaded, until the replay reaches their position.
    loaded: Option<MarkedFlows<SavedFlows>>,
    /// Those of the last mark.
    marked: Option<MarkedFlows<Flows>>,
}

/// The counters as of a position of the log.
#[derive(Debug)]
pub(super) struct MarkedFlows<F> {
    /// The position of the mark.
    pub(super) at: Position,
    /// What the counters cover.
    pub(super) layout: FlowLayout,
    /// Since when other segments have had no users.
    pub(super) since: Slot,
    /// The head of the index. The log before the mark, which may have it, is removed.
    pub(super) head: Slot,
    /// The counters of each segment.
    pub(super) segments: Vec<(Segment, F)>,
}

impl FlowState {
    /// Notes the counters of a snapshot. They are for a mark in the log.
    pub(super) fn load(&mut self, loaded: MarkedFlows<SavedFlows>) {
        self.loaded = Some(loaded);
    }

    /// The counters that were loaded and not restored yet.
    pub(super) fn loaded_mut(&mut self) -> Option<&mut MarkedFlows<SavedFlows>> {
        self.loaded.as_mut()
    }

    /// Takes the counters of the mark at this position.
    pub(super) fn take_marked(&mut self, at: Position) -> Option<MarkedFlows<Flows>> {
        self.marked.take_if(|marked| marked.at == at)
    }

    /// Applies a mark: restores the counters that belong to it, or copies those of now.
    pub(super) fn mark(&mut self, at: Position, index: &Index) {
        if let Some(loaded) = self.loaded.take_if(|loaded| loaded.at == at) {
            if loaded.layout == index.flow_layout() {
                index.restore_flows(&loaded.segments, loaded.since);
                self.counting = Some(loaded.since);
            }
            index.advance(loaded.head);
        } else if self.is_live {
            let (segments, since) = index.flows();
            self.marked = Some(MarkedFlows {
                at,
                layout: index.flow_layout(),
                since,
                head: index.head(),
                segments,
            });
        }
    }

    /// Applies the note that everything over `window` slots is counted since `since`.
    pub(super) fn note_counting(&mut self, since: Slot, window: u32, index: &Index) {
        // Several requests may have written the note at once.
        if window != index.flow_layout().window || self.counting == Some(since) {
            return;
        }
        self.counting = Some(since);
        if !self.is_live {
            index.restart_flows(since);
        }
    }

    /// Ends the replay, after pairs up to the slot `newest`. Without counters of a former process they begin now.
    pub(super) fn end_replay(&mut self, newest: Slot, index: &Index) {
        self.is_live = true;
        let is_lost = self.loaded.take().is_some();
        if is_lost || self.counting.is_none() {
            self.counting = None;
            let head = index.head().max(newest).number();
            // An empty state has never had users.
            let since = Slot::new(if head == 0 { 0 } else { head + 1 });
            index.restart_flows(since);
        }
    }

    /// Whether the log or the snapshot says since when everything is counted.
    pub(super) fn notes_counting(&self) -> bool {
        self.counting.is_some()
    }
}

/// Encodes counters by age: `steps u32 | (age before the last one, entered, left)*`, as numbers of variable length.
pub(super) fn push_by_age(out: &mut Vec<u8>, by_age: &[(u32, Flow)]) {
    out.extend_from_slice(&super::record::length(by_age.len()));
    let mut before = 0;
    for (age, flow) in by_age {
        for number in [u64::from(age - before), flow.entered, flow.left] {
            push_number(out, number);
        }
        before = *age;
    }
}

/// Decodes counters by age.
pub(super) fn by_age(fields: &mut Fields<'_>) -> Result<Vec<(u32, Flow)>, String> {
    let (mut read, mut age) = (Vec::new(), 0_u32);
    for _ in 0..fields.u32()? {
        let further = u32::try_from(number(fields)?).map_err(|_| "an age is out of range")?;
        age = age.checked_add(further).ok_or("an age is out of range")?;
        let (entered, left) = (number(fields)?, number(fields)?);
        // No segment has that many users. Sums must not overflow.
        if entered.max(left) > u64::from(u32::MAX) {
            return Err("a counter is out of range".to_owned());
        }
        read.push((age, Flow { entered, left }));
    }
    Ok(read)
}

/// Seven bits a byte, the lowest first; all but the last byte have the highest bit.
fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(fields: &mut Fields<'_>) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let byte = fields.u8()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_survives_a_file() {
        let flow = |entered, left| Flow { entered, left };
        let given = [
            (0, flow(1, 0)),
            (127, flow(128, 0)),
            (300, flow(0, u64::from(u32::MAX))),
            (u32::MAX, flow(16_384, 2_097_151)),
        ];
        let mut out = Vec::new();
        push_by_age(&mut out, &given);
        let mut fields = Fields::of(&out);
        assert_eq!(by_age(&mut fields).unwrap(), given);
        fields.end().unwrap();
        for bad in [
            &out[..out.len() - 1],
            &[
                1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
        ] {
            assert!(by_age(&mut Fields::of(bad)).is_err());
        }
    }
}
