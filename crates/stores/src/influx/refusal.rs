//! What the server means by an answer to a write that is not 204.

use super::error::{Answer, Error};

/// Why the server refuses lines of a body for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// How many lines the server says that it dropped; the others may be written or not.
    pub(super) dropped: Option<usize>,
    /// Whether the reason lies in a shard rather than in a line.
    pub(super) is_of_shard: bool,
    /// The reason, for the log and for the file of refused lines. The server's own words may echo the lines, and
    /// lines name users.
    pub(super) reason: String,
}

/// What an answer to a write means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Every line is durable, but for so many that are older than the bucket's retention.
    Taken {
        /// How many lines were dropped for their age.
        expired: usize,
    },
    /// Some or all lines will never be taken.
    Refused(Refusal),
    /// The lines may or may not be durable.
    Failed(Error),
}

impl Verdict {
    /// Reads the outcome of a write.
    pub(super) fn of(written: Result<(), Error>) -> Self {
        let error = match written {
            Ok(()) => return Self::Taken { expired: 0 },
            Err(error) => error,
        };
        let Error::Status(answer) = error else {
            return Self::Failed(error);
        };
        match (answer.status, expired_lines(&answer)) {
            // 2.0.x answers 500 where later ones answer 422.
            (422 | 500, Some(expired)) => Self::Taken { expired },
            (400 | 413 | 422, _) => Self::Refused(refusal(&answer)),
            _ => Self::Failed(Error::Status(answer)),
        }
    }
}

fn refusal(answer: &Answer) -> Refusal {
    let is_of_shard = answer.status == 422 && answer.message.contains("partial write");
    let class = match answer.status {
        413 => "too large",
        422 if answer.message.contains("field type conflict") => "field type conflict",
        422 => "partial write",
        _ => "malformed line",
    };
    Refusal {
        dropped: dropped_lines(answer),
        is_of_shard,
        reason: format!("status {} {class}", answer.status),
    }
}

/// How many lines were dropped for their age alone; `None` when that is not what the answer says.
///
/// The server answers with the first shard that fails, and says this only when none did. 2.8 and later say "dropped
/// 3 points outside retention policy", versions before them "points beyond retention policy dropped=3".
fn expired_lines(answer: &Answer) -> Option<usize> {
    let message = &answer.message;
    if let Some((before, _)) = message.split_once(" points outside retention policy") {
        return before.rsplit_once("dropped ")?.1.parse().ok();
    }
    let (_, after) = message.split_once("points beyond retention policy dropped=")?;
    leading_number(after)
}

/// How many lines the server says that it dropped of the shard that failed first.
fn dropped_lines(answer: &Answer) -> Option<usize> {
    let (_, after) = answer.message.rsplit_once("dropped=")?;
    (answer.status == 422).then_some(())?;
    leading_number(after)
}

fn leading_number(text: &str) -> Option<usize> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, message: &str) -> Verdict {
        Verdict::of(Err(Error::Status(Box::new(Answer {
            status,
            message: message.into(),
            ..Answer::default()
        }))))
    }

    fn expired(status: u16, message: &str) -> Option<usize> {
        match verdict(status, message) {
            Verdict::Taken { expired } => Some(expired),
            _ => None,
        }
    }

    #[test]
    fn a_refusal_for_age_is_told_from_others_in_each_version() {
        let since_2_8 = "failure writing points to database: partial write: dropped 12 points outside \
                         retention policy of duration 336h0m0s - oldest point pair,segment=s at ...";
        assert_eq!(expired(422, since_2_8), Some(12));
        let before = "failure writing points to database: partial write: points beyond retention policy dropped=7";
        assert_eq!(expired(422, before), Some(7));
        let in_2_0 = "unexpected error writing points to database: partial write: points beyond \
                      retention policy dropped=3";
        assert_eq!(expired(500, in_2_0), Some(3));
        assert_eq!(expired(500, "unexpected error: engine: cache full"), None);
        assert_eq!(expired(503, in_2_0), None);
    }

    #[test]
    fn a_conflict_of_types_belongs_to_a_shard() {
        let conflict = "partial write: field type conflict: input field \"user\" on measurement \
                        \"pair\" is type string, already exists as type integer dropped=2 for database: x";
        let Verdict::Refused(refusal) = verdict(422, conflict) else {
            panic!("refused");
        };
        assert_eq!(refusal.dropped, Some(2));
        assert!(refusal.is_of_shard);
        assert_eq!(refusal.reason, "status 422 field type conflict");
        let Verdict::Refused(refusal) = verdict(400, "unable to parse 'x dropped=2'") else {
            panic!("refused");
        };
        assert_eq!((refusal.dropped, refusal.is_of_shard), (None, false));
        assert!(!refusal.reason.contains('x'));
    }

    #[test]
    fn everything_else_leaves_the_lines_open() {
        for status in [200, 302, 401, 403, 404, 408, 429, 500, 503] {
            assert!(
                matches!(verdict(status, ""), Verdict::Failed(_)),
                "{status}"
            );
        }
        let timed_out = Verdict::of(Err(Error::TimedOut(std::time::Duration::ZERO)));
        assert!(matches!(timed_out, Verdict::Failed(_)));
    }
}
