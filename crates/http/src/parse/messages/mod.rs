//! Messages of analytics libraries: Segment's and RudderStack's, PostHog's and Snowplow's.
//!
//! Each dialect says which user a message is about, where its segment may be, and when it was made. Which of these places counts is
//! configured; a message without a segment is ignored. If the clock of the sender is off, as the time of sending shows, the time is
//! corrected.

mod body;
mod posthog;
mod segment;
mod snowplow;

use std::borrow::Cow;

use jiff::SignedDuration;
use serde::Deserialize;

use super::instant::parse_rfc3339;
use super::rest::Rest;
use super::scalar::Scalar;
use super::{BadBody, Push, Report, text_of};
use domain::Timestamp;

/// A clock that is off by no more than this is not corrected: a request takes some time, and repeats the time of sending of the
/// first attempt when it is sent again.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// Whose messages they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// One message of Segment or RudderStack, of this type if it has none itself.
    Message(&'static str),
    /// A batch of these.
    Batch,
    /// A batch of PostHog's events.
    PostHog,
    /// A payload of Snowplow's events.
    Snowplow,
}

/// How messages are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRules {
    /// Where the segment is: the first of these that a message has.
    pub segment: Vec<SegmentSource>,
    /// Whether messages that give a user another id merge both.
    pub merges: bool,
}

/// Where the segment of a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentSource {
    /// The property `segment`.
    Property,
    /// The name of an event.
    Event,
    /// The id of a group.
    GroupId,
    /// The name of a page or screen.
    Name,
}

impl SegmentSource {
    /// All sources, by their names in settings.
    pub const ALL: [(&'static str, Self); 4] = [
        ("properties.segment", Self::Property),
        ("event", Self::Event),
        ("groupId", Self::GroupId),
        ("name", Self::Name),
    ];
}

/// A user who has another id from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The id until now.
    pub from: String,
    /// The id that replaces it.
    pub into: String,
}

/// When a message was made and sent. The error is the name of the member that is no instant.
type Times = Result<(Option<Timestamp>, Option<Timestamp>), &'static str>;

/// What a message says, in every dialect.
#[derive(Debug)]
struct Message<'a> {
    user: Option<Cow<'a, str>>,
    property: Option<Cow<'a, str>>,
    event: Option<Cow<'a, str>>,
    group_id: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    times: Times,
    /// The id that its user had before.
    merge_from: Option<Cow<'a, str>>,
}

/// A message as a dialect writes it. Null is the same as missing.
trait Written<'a>: Deserialize<'a> {
    /// What the members of a user's id are called.
    const USER: &'static str;

    /// Reads a message in its plainest form; `None` leaves it to the JSON parser.
    fn plain(_: &mut Rest<'a>) -> Option<Self> {
        None
    }

    fn read(self) -> Message<'a>;
}

/// What matters of a message by the rules. All messages of a body are kept until its end, so it is small.
#[derive(Debug)]
struct Taken<'a> {
    user: Option<Cow<'a, str>>,
    segment: Option<Cow<'a, str>>,
    at: At,
    merge_from: Option<Box<str>>,
}

/// When a message was made.
#[derive(Debug)]
enum At {
    /// By the clock of this service, if the message says it.
    Known(Option<Timestamp>),
    /// By the clock of the sender, until it is known when the body was sent.
    Sender(Timestamp),
    /// The member of this name is no instant.
    Bad(&'static str),
}

impl At {
    fn of(times: Times, now: Timestamp) -> Self {
        match times {
            Ok((Some(made), None)) => Self::Sender(made),
            Ok((made, sent)) => Self::Known(corrected(made, sent, now)),
            Err(name) => Self::Bad(name),
        }
    }
}

/// What decides about a message: the rules, and when its body was received.
#[derive(Debug, Clone, Copy)]
struct Context<'r> {
    rules: &'r MessageRules,
    now: Timestamp,
}

/// Parses a body, and pushes its pairs. Messages without a segment are ignored, and merges reported.
///
/// # Errors
///
/// If the body is none of `dialect`. Then nothing was pushed.
pub fn messages(
    body: &[u8],
    dialect: Dialect,
    rules: &MessageRules,
    now: Timestamp,
    push: &mut impl Push,
) -> Result<Report, BadBody> {
    let text = text_of(body)?;
    let context = Context { rules, now };
    let found = match dialect {
        Dialect::Message(kind) => body::one(text, context, |message: &mut segment::Written| {
            message.is_of_kind(kind);
        }),
        Dialect::Batch => body::batch::<segment::Written>(text, context),
        Dialect::PostHog => body::batch::<posthog::Written>(text, context),
        Dialect::Snowplow => body::batch::<snowplow::Written>(text, context),
    }?;
    let mut report = Report::default();
    report.ignored = found.ignored;
    for entry in found.entries {
        match entry {
            Ok(message) => {
                let sent = (found.sent, now);
                take(message, found.user_is_called, sent, push, &mut report);
            }
            Err(error) => report.reject("malformed", || format!("not a message: {error}")),
        }
    }
    Ok(report)
}

/// `sent` is when the body was sent, if it says so, and received.
fn take(
    message: Taken<'_>,
    user_is_called: &'static str,
    (sent, received): (Option<Timestamp>, Timestamp),
    push: &mut impl Push,
    report: &mut Report,
) {
    if let (Some(into), Some(from)) = (&message.user, message.merge_from) {
        report.merges.push(Merge {
            from: from.into_string(),
            into: into.clone().into_owned(),
        });
    }
    let Some(segment) = message.segment else {
        report.ignored += 1;
        return;
    };
    let Some(user) = message.user else {
        return report.reject("invalid_user_id", || {
            format!("{user_is_called} must be a string or an integer")
        });
    };
    let at = match message.at {
        At::Known(at) => at,
        At::Sender(made) => corrected(Some(made), sent, received),
        At::Bad(name) => {
            return report.reject("invalid_at", || format!("{name} is not an instant"));
        }
    };
    match push(&user, &segment, at) {
        Ok(()) => report.accept(),
        Err(error) => report.reject(error.code(), || error.to_string()),
    }
}

/// The token that a body of `dialect` has, for libraries that send it nowhere else.
///
/// # Errors
///
/// If the body is not JSON.
pub fn token(body: &[u8], dialect: Dialect) -> Result<Option<String>, BadBody> {
    match dialect.token_in_body() {
        Some(token) => Ok(token(text_of(body)?)?),
        None => Ok(None),
    }
}

/// Finds the token in a body.
type TokenIn = fn(&str) -> serde_json::Result<Option<String>>;

impl Dialect {
    /// Whether the libraries send the token in the body and nowhere else.
    pub const fn has_token_in_body(self) -> bool {
        self.token_in_body().is_some()
    }

    const fn token_in_body(self) -> Option<TokenIn> {
        match self {
            Self::PostHog => Some(posthog::token),
            Self::Snowplow => Some(snowplow::token),
            Self::Message(_) | Self::Batch => None,
        }
    }
}

impl<'a> Message<'a> {
    /// What matters of it; `None` if it has neither a segment nor a merge.
    fn by(self, Context { rules, now }: Context<'_>) -> Option<Taken<'a>> {
        let merge_from = self.merge_from.filter(|_| rules.merges);
        let merge_from = merge_from.filter(|from| Some(from) != self.user.as_ref());
        let (mut property, mut event) = (self.property, self.event);
        let (mut group_id, mut name) = (self.group_id, self.name);
        let segment = rules.segment.iter().find_map(|source| match source {
            SegmentSource::Property => property.take(),
            SegmentSource::Event => event.take(),
            SegmentSource::GroupId => group_id.take(),
            SegmentSource::Name => name.take(),
        });
        (segment.is_some() || merge_from.is_some()).then_some(Taken {
            user: self.user,
            segment,
            at: At::of(self.times, now),
            merge_from: merge_from.map(Box::from),
        })
    }
}

/// When a message was made, by the clock of this service.
fn corrected(
    made: Option<Timestamp>,
    sent: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let (Some(made), Some(sent)) = (made, sent) else {
        return made;
    };
    if now.duration_since(sent).abs() <= TOLERANCE {
        return Some(made);
    }
    // By its own clock the sender made it this long before it sent it.
    let before = sent.duration_since(made).max(SignedDuration::ZERO);
    Some(now.checked_sub(before).unwrap_or(Timestamp::MIN))
}

/// The first of `ids` that is not empty.
fn first<'a, const N: usize>(ids: [Option<Scalar<'a>>; N]) -> Option<Cow<'a, str>> {
    ids.into_iter().flatten().find_map(Scalar::non_empty)
}

fn non_empty(value: Option<Scalar<'_>>) -> Option<Cow<'_, str>> {
    value.and_then(Scalar::non_empty)
}

/// The instant in `value`, an RFC 3339 timestamp. The error is `name`.
fn instant(
    value: Option<&Scalar<'_>>,
    name: &'static str,
) -> Result<Option<Timestamp>, &'static str> {
    let parse = |value: &Scalar<'_>| value.text().and_then(parse_rfc3339).ok_or(name);
    value.map(parse).transpose()
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
