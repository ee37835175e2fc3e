//! The requests whose lines share a body, and what each of them is answered.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::lines::Lines;
use super::plan::Fate;
use domain::store::{Partly, StoreError};

/// What a request is answered.
pub(super) type Answer = Result<(), StoreError>;

/// The lines of some requests, one after the other.
#[derive(Debug, Default)]
pub(super) struct Group {
    lines: Lines,
    /// Up to which line the lines of each request go.
    ends: Vec<usize>,
    /// Where each is answered, until it was.
    answers: Vec<Option<oneshot::Sender<Answer>>>,
}

impl Group {
    /// A group of one request, and where it is answered.
    pub(super) fn of_one(lines: Lines) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        let mut group = Self::default();
        group.push(lines, answer);
        (group, answered)
    }

    /// Adds a request.
    pub(super) fn push(&mut self, lines: Lines, answer: oneshot::Sender<Answer>) {
        match self.answers.is_empty() {
            true => self.lines = lines,
            false => self.lines.append(&lines),
        }
        self.ends.push(self.lines.count());
        self.answers.push(Some(answer));
    }

    /// Whether no request is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The text of all lines, given away.
    pub(super) fn take_text(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.lines).into_text())
    }

    /// Up to which line the lines of each request go.
    pub(super) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The requests that were not answered yet.
    pub(super) fn unanswered(&self) -> Vec<usize> {
        self.those(|_| true)
    }

    /// The requests among them that nobody waits for any more.
    pub(super) fn gone(&self) -> Vec<usize> {
        self.those(oneshot::Sender::is_closed)
    }

    fn those(&self, is_one: impl Fn(&oneshot::Sender<Answer>) -> bool) -> Vec<usize> {
        let answers = self.answers.iter().enumerate();
        let those = answers.filter(|(_, answer)| answer.as_ref().is_some_and(&is_one));
        those.map(|(owner, _)| owner).collect()
    }

    /// Answers every request alike.
    pub(super) fn answer_all(self, answer: &Answer) {
        for sender in self.answers.into_iter().flatten() {
            // Whoever gave up no longer listens.
            let _gone = sender.send(answer.clone());
        }
    }

    /// Answers one from the `fates` of its lines. `kept` says whether those refused are in the file for them, and
    /// `trouble` why some are open, if it is not that the time was over.
    pub(super) fn answer(
        &mut self,
        owner: usize,
        fates: impl Iterator<Item = Fate>,
        kept: bool,
        reason: &str,
        trouble: Option<&StoreError>,
    ) {
        let Some(sender) = self.answers.get_mut(owner).and_then(Option::take) else {
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
    StoreError::Timeout("InfluxDB: finding the lines that it refuses took too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fates: &[Fate], trouble: Option<&StoreError>) -> Answer {
        let (mut group, mut answered) = Group::of_one(Lines::default());
        group.answer(0, fates.iter().copied(), true, "status 422", trouble);
        answered.try_recv().unwrap()
    }

    #[test]
    fn a_request_is_answered_from_the_fates_of_its_lines() {
        use Fate::{Open, Refused, Taken};
        assert!(answer(&[Taken, Taken], None).is_ok());
        let unavailable = StoreError::Unavailable(String::new());
        let name = |answer: Answer| answer.unwrap_err().name();
        assert_eq!(
            name(answer(&[Open, Open], Some(&unavailable))),
            "unavailable"
        );
        assert_eq!(name(answer(&[Open], None)), "timeout");
        let Err(StoreError::Partly(partly)) = answer(&[Taken, Refused, Open, Refused], None) else {
            panic!("partly");
        };
        assert_eq!((partly.refused, partly.open), (vec![1, 3], vec![2]));
        assert!(partly.kept);
    }
}
