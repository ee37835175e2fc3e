//! The requests whose lines share one body, and their results.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::lines::Lines;
use super::plan::Fate;
use domain::store::{Partly, StoreError};

/// The result of one request.
pub(super) type WriteResult = Result<(), StoreError>;

/// Several requests with their lines concatenated.
#[derive(Debug, Default)]
pub(super) struct Group {
    lines: Lines,
    /// For each request, the end of its lines, as a number of lines from the start.
    ends: Vec<usize>,
    /// The reply channel of each request, until it is used.
    replies: Vec<Option<oneshot::Sender<WriteResult>>>,
}

impl Group {
    /// A group of one request, and the receiver of its result.
    pub(super) fn of_one(lines: Lines) -> (Self, oneshot::Receiver<WriteResult>) {
        let (reply, result) = oneshot::channel();
        let mut group = Self::default();
        group.push(lines, reply);
        (group, result)
    }

    /// Adds a request.
    pub(super) fn push(&mut self, lines: Lines, reply: oneshot::Sender<WriteResult>) {
        match self.replies.is_empty() {
            true => self.lines = lines,
            false => self.lines.append(&lines),
        }
        self.ends.push(self.lines.count());
        self.replies.push(Some(reply));
    }

    /// Whether the group has no requests.
    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Takes the concatenated lines out of the group.
    pub(super) fn take_body(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.lines).into_bytes())
    }

    /// For each request, the end of its lines, as a number of lines from the start.
    pub(super) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The indices of the requests without a result so far.
    pub(super) fn pending(&self) -> Vec<usize> {
        self.select(|_| true)
    }

    /// The indices of the requests without a result whose callers have stopped waiting.
    pub(super) fn abandoned(&self) -> Vec<usize> {
        self.select(oneshot::Sender::is_closed)
    }

    fn select(&self, is_one: impl Fn(&oneshot::Sender<WriteResult>) -> bool) -> Vec<usize> {
        let replies = self.replies.iter().enumerate();
        let selected = replies.filter(|(_, reply)| reply.as_ref().is_some_and(&is_one));
        selected.map(|(owner, _)| owner).collect()
    }

    /// Sends the same result to every request.
    pub(super) fn complete_all(self, result: &WriteResult) {
        for sender in self.replies.into_iter().flatten() {
            // The caller may have stopped waiting.
            let _gone = sender.send(result.clone());
        }
    }

    /// Sends the result of the request `owner`, given the `fates` of its lines. `kept` is whether the refused lines are in
    /// the dead-letter file. `trouble` is why lines are open; `None` means that the time ran out.
    pub(super) fn complete(
        &mut self,
        owner: usize,
        fates: impl Iterator<Item = Fate>,
        kept: bool,
        reason: &str,
        trouble: Option<&StoreError>,
    ) {
        let Some(sender) = self.replies.get_mut(owner).and_then(Option::take) else {
            return;
        };
        let mut partly = Partly {
            kept,
            reason: format!("InfluxDB: {reason}"),
            ..Partly::default()
        };
        let mut lines = 0;
        for (position, fate) in fates.enumerate() {
            lines += 1;
            match fate {
                Fate::Taken => {}
                Fate::Refused => partly.refused.push(position),
                Fate::Open => partly.open.push(position),
            }
        }
        let _gone = sender.send(match (partly.refused.len(), partly.open.len()) {
            (0, 0) => Ok(()),
            (0, open) if open == lines => Err(trouble.cloned().unwrap_or_else(too_long)),
            _ => Err(StoreError::Partly(Box::new(partly))),
        });
    }
}

fn too_long() -> StoreError {
    StoreError::Timeout("InfluxDB: the search for refused lines took too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result_of(fates: &[Fate], trouble: Option<&StoreError>) -> WriteResult {
        let (mut group, mut result) = Group::of_one(Lines::default());
        group.complete(0, fates.iter().copied(), true, "status 422", trouble);
        result.try_recv().unwrap()
    }

    #[test]
    fn a_request_is_answered_from_the_fates_of_its_lines() {
        use Fate::{Open, Refused, Taken};
        assert!(result_of(&[Taken, Taken], None).is_ok());
        let unavailable = StoreError::Unavailable(String::new());
        let name = |result: WriteResult| result.unwrap_err().name();
        assert_eq!(
            name(result_of(&[Open, Open], Some(&unavailable))),
            "unavailable"
        );
        assert_eq!(name(result_of(&[Open], None)), "timeout");
        let Err(StoreError::Partly(partly)) = result_of(&[Taken, Refused, Open, Refused], None)
        else {
            panic!("partly");
        };
        assert_eq!((partly.refused, partly.open), (vec![1, 3], vec![2]));
        assert!(partly.kept);
    }
}
