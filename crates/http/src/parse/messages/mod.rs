//! Messages of analytics libraries: Segment's and RudderStack's, PostHog's and Snowplow's.
//!
//! Each dialect says which user a message is about, where its segment may be, and when it was made. Which of these places counts is
//! configured; a message without a segment is ignored. If the clock of the sender is off, as the time of sending shows, the time is
//! corrected.

mod posthog;
mod segment;
mod snowplow;

use std::borrow::Cow;

use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::instant::parse_rfc3339;
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

/// What a message says, in every dialect.
#[derive(Debug)]
struct Message<'a> {
    user: Option<Cow<'a, str>>,
    property: Option<Cow<'a, str>>,
    event: Option<Cow<'a, str>>,
    group_id: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    /// When it was made and sent. The error is the name of the member that is no instant.
    times: Result<(Option<Timestamp>, Option<Timestamp>), &'static str>,
    /// The id that its user had before.
    merge_from: Option<Cow<'a, str>>,
}

/// A message as a dialect writes it. Null is the same as missing.
trait Written<'a>: Deserialize<'a> {
    /// What the members of a user's id are called.
    const USER: &'static str;

    /// `sent` is when the batch was sent.
    fn read(self, sent: Option<&Scalar<'a>>) -> Message<'a>;
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
    let mut reader = Reader {
        rules,
        now,
        push,
        report: Report::default(),
    };
    match dialect {
        Dialect::Message(kind) => {
            let message: &RawValue = serde_json::from_str(text)?;
            reader.one(message.get(), None, |message: &mut segment::Written| {
                message.is_of_kind(kind);
            });
        }
        Dialect::Batch => reader.batch::<segment::Written>(text)?,
        Dialect::PostHog => reader.batch::<posthog::Written>(text)?,
        Dialect::Snowplow => reader.batch::<snowplow::Written>(text)?,
    }
    Ok(reader.report)
}

/// The token that a body of `dialect` has, for libraries that send it nowhere else.
///
/// # Errors
///
/// If the body is not JSON.
pub fn token(body: &[u8], dialect: Dialect) -> Result<Option<String>, BadBody> {
    let text = text_of(body)?;
    Ok(match dialect {
        Dialect::PostHog => posthog::token(text)?,
        Dialect::Snowplow => snowplow::token(text)?,
        Dialect::Message(_) | Dialect::Batch => None,
    })
}

/// A body with a list of messages. They are parsed one by one, so that a bad one does not affect the others.
#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, alias = "data")]
    batch: Vec<&'a RawValue>,
    #[serde(borrow, alias = "sentAt")]
    sent_at: Option<Scalar<'a>>,
}

struct Reader<'r, P> {
    rules: &'r MessageRules,
    now: Timestamp,
    push: &'r mut P,
    report: Report,
}

impl<P: Push> Reader<'_, P> {
    fn batch<'a, M: Written<'a>>(&mut self, text: &'a str) -> Result<(), BadBody> {
        let Batch { batch, sent_at } = serde_json::from_str(text)?;
        for message in batch {
            self.one(message.get(), sent_at.as_ref(), |_: &mut M| {});
        }
        Ok(())
    }

    fn one<'a, M: Written<'a>>(
        &mut self,
        text: &'a str,
        sent: Option<&Scalar<'a>>,
        complete: impl FnOnce(&mut M),
    ) {
        match serde_json::from_str::<M>(text) {
            Ok(mut message) => {
                complete(&mut message);
                self.take::<M>(message.read(sent));
            }
            Err(error) => {
                self.report
                    .reject("malformed", || format!("not a message: {error}"));
            }
        }
    }

    fn take<'a, M: Written<'a>>(&mut self, message: Message<'_>) {
        let (report, merge) = (&mut self.report, &message.merge_from);
        if let (true, Some(into), Some(from)) = (self.rules.merges, &message.user, merge)
            && from != into
        {
            report.merges.push(Merge {
                from: from.clone().into_owned(),
                into: into.clone().into_owned(),
            });
        }
        let mut sources = self.rules.segment.iter();
        let Some(segment) = sources.find_map(|source| message.segment(*source)) else {
            report.ignored += 1;
            return;
        };
        let Some(user) = &message.user else {
            return report.reject("invalid_user_id", || {
                format!("{} must be a string or an integer", M::USER)
            });
        };
        let at = match message.times {
            Ok((made, sent)) => corrected(made, sent, self.now),
            Err(name) => {
                return report.reject("invalid_at", || format!("{name} is not an instant"));
            }
        };
        match (self.push)(user, segment, at) {
            Ok(()) => report.accept(),
            Err(error) => report.reject(error.code(), || error.to_string()),
        }
    }
}

impl Message<'_> {
    fn segment(&self, source: SegmentSource) -> Option<&str> {
        match source {
            SegmentSource::Property => self.property.as_deref(),
            SegmentSource::Event => self.event.as_deref(),
            SegmentSource::GroupId => self.group_id.as_deref(),
            SegmentSource::Name => self.name.as_deref(),
        }
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
