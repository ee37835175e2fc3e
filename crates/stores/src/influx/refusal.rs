//! The meaning of a response to a write that is not 204.

use super::error::{Error, ErrorResponse};

/// Why the server permanently refuses lines of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The number of lines that the server reports as dropped. The other lines may or may not be written.
    pub(super) dropped: Option<usize>,
    /// Whether the cause is a shard rather than a line.
    pub(super) is_of_shard: bool,
    /// The reason, for the log and for the dead-letter file. It does not contain the server's message, which may echo
    /// lines and thus user ids.
    pub(super) reason: String,
}

/// The meaning of a response to a write.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Every line is durable, except lines that are older than the bucket's retention.
    Taken {
        /// The number of lines that were dropped for their age.
        expired: usize,
    },
    /// The server will never accept some or all of the lines.
    Refused(Refusal),
    /// The lines may or may not be durable.
    Failed(Error),
}

impl Verdict {
    /// Interprets the result of a write.
    pub(super) fn of(written: Result<(), Error>) -> Self {
        let error = match written {
            Ok(()) => return Self::Taken { expired: 0 },
            Err(error) => error,
        };
        let Error::Status(response) = error else {
            return Self::Failed(error);
        };
        match (response.status, expired_lines(&response)) {
            // 2.0.x returns 500 where later versions return 422.
            (422 | 500, Some(expired)) => Self::Taken { expired },
            (400 | 413 | 422, _) => Self::Refused(refusal(&response)),
            _ => Self::Failed(Error::Status(response)),
        }
    }
}

fn refusal(response: &ErrorResponse) -> Refusal {
    let is_of_shard = response.status == 422 && response.message.contains("partial write");
    let class = match response.status {
        413 => "too large",
        422 if response.message.contains("field type conflict") => "field type conflict",
        422 => "partial write",
        _ => "malformed line",
    };
    Refusal {
        dropped: dropped_lines(response),
        is_of_shard,
        reason: format!("status {} {class}", response.status),
    }
}

/// The number of lines that were dropped for their age alone; `None` if the response reports anything else.
///
/// The server reports the first shard that fails, and reports dropped points only if no shard failed. 2.8 and later
/// write "dropped 3 points outside retention policy", earlier versions "points beyond retention policy dropped=3".
fn expired_lines(response: &ErrorResponse) -> Option<usize> {
    let message = &response.message;
    if let Some((before, _)) = message.split_once(" points outside retention policy") {
        return before.rsplit_once("dropped ")?.1.parse().ok();
    }
    let (_, after) = message.split_once("points beyond retention policy dropped=")?;
    leading_number(after)
}

/// The number of lines that the server reports as dropped in the shard that failed first.
fn dropped_lines(response: &ErrorResponse) -> Option<usize> {
    let (_, after) = response.message.rsplit_once("dropped=")?;
    (response.status == 422).then_some(())?;
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
        Verdict::of(Err(Error::Status(Box::new(ErrorResponse {
            status,
            message: message.into(),
            ..ErrorResponse::default()
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
