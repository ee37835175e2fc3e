//! What to send of a body next, and which of its lines are settled. No I/O and no clock.
//!
//! A body is first sent whole. When the server refuses it, its lines are taken apart by what may differ between
//! them: by the shard that holds their timestamps, since the type of a field belongs to measurement and shard; by
//! the request that brought them, since nobody must pay for a stranger's lines; and then by halves. A line is
//! refused when the server refused it alone, or said of a body that it took none of its lines.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::lines::line_ranges;
use super::refusal::Refusal;

/// The plan for one body.
#[derive(Debug)]
pub(super) struct Plan {
    text: Bytes,
    lines: Vec<Line>,
    /// Open lines of each owner.
    left: Vec<usize>,
    /// Owners whose last line was settled since this was last asked for.
    settled: Vec<usize>,
    /// Parts with lines of several owners, the next one last.
    shared: Vec<Part>,
    /// Parts of one owner, the next one last.
    own: BTreeMap<usize, Vec<Part>>,
    /// The owner whose part was sent last: owners take turns.
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

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not known yet.
    Open,
    /// It is durable.
    Taken,
    /// The server refuses it for good.
    Refused,
}

/// Lines that are sent together, by their numbers in the body.
#[derive(Debug)]
pub(super) struct Part {
    lines: Vec<usize>,
}

impl Part {
    /// How many lines it has.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }
}

impl Plan {
    /// A plan for `text`, whose owners have their lines up to `ends`, each a number of lines from the beginning.
    /// Shards are `shard_seconds` long.
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

    /// The next part to send. Parts of several owners come first: whoever has no bad line is settled by them.
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

    /// The text of a part.
    pub(super) fn text_of(&self, part: &Part) -> Bytes {
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

    /// Notes that the server took all of `part`.
    pub(super) fn taken(&mut self, part: &Part) {
        self.settle(part, Fate::Taken);
    }

    /// Notes that the server refused `part`, and takes it apart.
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

    /// Sends nothing more of `owner`, whose open lines stay open.
    pub(super) fn abandon(&mut self, owner: usize) {
        self.own.remove(&owner);
    }

    /// The owners all of whose lines have been settled since the last call.
    pub(super) fn take_settled(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.settled)
    }

    /// The fates of the lines of `owner`, in their order.
    pub(super) fn fates(&self, owner: usize) -> impl Iterator<Item = Fate> {
        self.of(owner).map(|line| line.fate)
    }

    /// The text of the refused lines of `owner`.
    pub(super) fn refused_text(&self, owner: usize) -> Vec<u8> {
        let refused = self.of(owner).filter(|line| line.fate == Fate::Refused);
        refused
            .flat_map(|line| &self.text[line.start..line.end])
            .copied()
            .collect()
    }

    /// How many lines are refused, and how many are open.
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

    /// Puts a part where it is the next one of its kind.
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

    /// Two parts, each with about half of the owners: a bad one among many is found in a few writes.
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

/// The number of the shard that holds a line; 0 for a line without a timestamp, which this program never writes.
fn shard_of(line: &[u8], shard_seconds: u64) -> i64 {
    let seconds = super::lines::timestamp(line).unwrap_or(0) / 1_000_000_000;
    seconds.div_euclid(i64::try_from(shard_seconds).unwrap_or(i64::MAX).max(1))
}
