//! Decides which part of a body to send next, and tracks which of its lines are settled. No I/O and no clock.
//!
//! A body is first sent as a whole. If the server refuses it, the plan splits its lines: by the shard of their
//! timestamps, because the type of a field belongs to measurement and shard; by request, because the lines of one
//! request must not affect another; and then into halves. A line counts as refused if the server refused it alone, or
//! reported that it dropped all lines of a part.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::lines::line_ranges;
use super::refusal::Refusal;

/// The plan for one body.
#[derive(Debug)]
pub(super) struct Plan {
    text: Bytes,
    lines: Vec<Line>,
    /// The number of open lines of each owner. An owner is a request, by its index in the group.
    left: Vec<usize>,
    /// Owners whose last line was settled since the last call of `take_settled`.
    settled: Vec<usize>,
    /// A stack of the parts with lines of several owners.
    shared: Vec<Part>,
    /// For each owner, a stack of the parts with lines of that owner only.
    own: BTreeMap<usize, Vec<Part>>,
    /// The owner of the last part. Owners are served round-robin.
    turn: usize,
}

#[derive(Debug)]
struct Line {
    start: usize,
    end: usize,
    owner: usize,
    shard: i64,
    fate: Fate,
}

/// The state of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is not known yet whether the line is durable.
    Open,
    /// The line is durable.
    Taken,
    /// The server refuses the line permanently.
    Refused,
}

/// Lines that are sent together, as line numbers of the body.
#[derive(Debug)]
pub(super) struct Part {
    lines: Vec<usize>,
}

impl Part {
    /// The number of lines.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }
}

impl Plan {
    /// A plan for the body `text`. `ends` has the end of each owner's lines, as a number of lines from the start of the
    /// body. Shards are `shard_seconds` long.
    pub(super) fn new(text: Bytes, ends: &[usize], shard_seconds: u64) -> Self {
        let mut lines = Vec::with_capacity(ends.last().copied().unwrap_or(0));
        let mut owner = 0;
        for (number, range) in line_ranges(&text).enumerate() {
            while ends.get(owner).is_some_and(|end| *end <= number) {
                owner += 1;
            }
            lines.push(Line {
                shard: shard_of(&text[range.clone()], shard_seconds),
                start: range.start,
                end: range.end,
                owner,
                fate: Fate::Open,
            });
        }
        let mut left = vec![0; ends.len()];
        for line in &lines {
            left[line.owner] += 1;
        }
        let mut plan = Self {
            text,
            left,
            settled: Vec::new(),
            shared: Vec::new(),
            own: BTreeMap::new(),
            turn: 0,
            lines,
        };
        let whole = (0..plan.lines.len()).collect();
        plan.put(Part { lines: whole });
        plan
    }

    /// The next part to send. Parts of several owners come first, because they settle owners without bad lines.
    pub(super) fn next(&mut self) -> Option<Part> {
        if let Some(part) = self.shared.pop() {
            return Some(part);
        }
        let after = self.own.range(self.turn + 1..).next();
        let (&owner, _) = after.or_else(|| self.own.iter().next())?;
        self.turn = owner;
        let parts = self.own.get_mut(&owner)?;
        let part = parts.pop();
        if parts.is_empty() {
            self.own.remove(&owner);
        }
        part
    }

    /// Whether the next part has lines of several owners.
    pub(super) fn is_shared(&self) -> bool {
        !self.shared.is_empty()
    }

    /// The lines of a part as bytes.
    pub(super) fn bytes_of(&self, part: &Part) -> Bytes {
        if part.len() == self.lines.len() {
            return self.text.clone();
        }
        let lines = part.lines.iter().map(|line| &self.lines[*line]);
        let mut text =
            BytesMut::with_capacity(lines.clone().map(|line| line.end - line.start).sum());
        for line in lines {
            text.extend_from_slice(&self.text[line.start..line.end]);
        }
        text.freeze()
    }

    /// Records that the server accepted all of `part`.
    pub(super) fn taken(&mut self, part: &Part) {
        self.settle(part, Fate::Taken);
    }

    /// Records that the server refused `part`, and splits it.
    pub(super) fn refused(&mut self, part: Part, refusal: &Refusal) {
        if part.len() == 1 || refusal.dropped == Some(part.len()) {
            return self.settle(&part, Fate::Refused);
        }
        let first = &self.lines[part.lines[0]];
        let (owner, shard) = (first.owner, first.shard);
        let has =
            |other: &dyn Fn(&Line) -> bool| part.lines.iter().any(|line| other(&self.lines[*line]));
        let several_owners = has(&|line| line.owner != owner);
        let several_shards = has(&|line| line.shard != shard);
        let parts = match (several_owners, several_shards) {
            (false, true) => self.by_shard(part),
            (true, true) if refusal.is_of_shard => self.by_shard(part),
            (true, _) => self.by_owner(part),
            (false, false) => halves(part),
        };
        for part in parts.into_iter().rev() {
            self.put(part);
        }
    }

    /// Removes the parts of `owner` from the plan. Its open lines stay open.
    pub(super) fn abandon(&mut self, owner: usize) {
        self.own.remove(&owner);
    }

    /// The owners whose last open line was settled since the last call.
    pub(super) fn take_settled(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.settled)
    }

    /// The fates of the lines of `owner`, in order.
    pub(super) fn fates(&self, owner: usize) -> impl Iterator<Item = Fate> {
        self.of(owner).map(|line| line.fate)
    }

    /// The refused lines of `owner` as bytes.
    pub(super) fn refused_lines(&self, owner: usize) -> Vec<u8> {
        let refused = self.of(owner).filter(|line| line.fate == Fate::Refused);
        refused
            .flat_map(|line| &self.text[line.start..line.end])
            .copied()
            .collect()
    }

    /// The number of refused lines and the number of open lines.
    pub(super) fn unfit(&self) -> (usize, usize) {
        let count = |fate| self.lines.iter().filter(|line| line.fate == fate).count();
        (count(Fate::Refused), count(Fate::Open))
    }

    fn of(&self, owner: usize) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.owner == owner)
    }

    fn settle(&mut self, part: &Part, fate: Fate) {
        for line in &part.lines {
            let line = &mut self.lines[*line];
            line.fate = fate;
            self.left[line.owner] -= 1;
            if self.left[line.owner] == 0 {
                self.settled.push(line.owner);
            }
        }
    }

    /// Pushes a part onto its stack.
    fn put(&mut self, part: Part) {
        let owner_of = |line: Option<&usize>| line.map(|line| self.lines[*line].owner);
        let owner = owner_of(part.lines.first());
        let Some(owner) = owner else { return };
        let is_shared = part
            .lines
            .iter()
            .any(|line| self.lines[*line].owner != owner);
        match is_shared {
            true => self.shared.push(part),
            false => self.own.entry(owner).or_default().push(part),
        }
    }

    fn by_shard(&self, part: Part) -> Vec<Part> {
        let mut shards: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for line in part.lines {
            shards.entry(self.lines[line].shard).or_default().push(line);
        }
        let part = |lines| Part { lines };
        shards.into_values().map(part).collect()
    }

    /// Splits into two parts, each with about half of the owners. A binary search finds one bad owner in a few writes.
    fn by_owner(&self, part: Part) -> Vec<Part> {
        let mut owners: VecDeque<usize> = VecDeque::new();
        for line in &part.lines {
            let owner = self.lines[*line].owner;
            if owners.back() != Some(&owner) {
                owners.push_back(owner);
            }
        }
        let middle = owners[owners.len() / 2];
        let (first, second) = part
            .lines
            .into_iter()
            .partition(|line| self.lines[*line].owner < middle);
        vec![Part { lines: first }, Part { lines: second }]
    }
}

fn halves(mut part: Part) -> Vec<Part> {
    let second = part.lines.split_off(part.lines.len().div_ceil(2));
    vec![part, Part { lines: second }]
}

/// The number of a line's shard; 0 for a line without a timestamp, which this program never writes.
fn shard_of(line: &[u8], shard_seconds: u64) -> i64 {
    let seconds = super::lines::timestamp(line).unwrap_or(0) / 1_000_000_000;
    seconds.div_euclid(i64::try_from(shard_seconds).unwrap_or(i64::MAX).max(1))
}
