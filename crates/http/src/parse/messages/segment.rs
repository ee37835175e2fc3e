//! Messages of the libraries of Segment and RudderStack.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Message, first, instant, non_empty};
use crate::parse::rest::Rest;
use crate::parse::scalar::Scalar;

/// A call of one of these libraries.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Scalar<'a>>,
    #[serde(borrow)]
    user_id: Option<Scalar<'a>>,
    #[serde(borrow)]
    anonymous_id: Option<Scalar<'a>>,
    #[serde(borrow)]
    previous_id: Option<Scalar<'a>>,
    #[serde(borrow)]
    event: Option<Scalar<'a>>,
    #[serde(borrow)]
    name: Option<Scalar<'a>>,
    #[serde(borrow)]
    group_id: Option<Scalar<'a>>,
    #[serde(borrow)]
    properties: Option<Properties<'a>>,
    #[serde(borrow)]
    timestamp: Option<Scalar<'a>>,
    #[serde(borrow)]
    original_timestamp: Option<Scalar<'a>>,
    #[serde(borrow)]
    sent_at: Option<Scalar<'a>>,
}

#[derive(Deserialize, Default)]
struct Properties<'a> {
    #[serde(borrow)]
    segment: Option<Scalar<'a>>,
}

impl Written<'_> {
    /// Sets its type, if it has none.
    pub(super) fn is_of_kind(&mut self, kind: &'static str) {
        let kind = Scalar::Text(Cow::Borrowed(kind));
        self.kind.get_or_insert(kind);
    }
}

impl<'a> Written<'a> {
    /// The member called `name` and its number; `None` if no text that matters is called so.
    fn text(&mut self, name: &str) -> Option<(u32, &mut Option<Scalar<'a>>)> {
        Some(match name {
            "type" => (0, &mut self.kind),
            "userId" => (1, &mut self.user_id),
            "anonymousId" => (2, &mut self.anonymous_id),
            "previousId" => (3, &mut self.previous_id),
            "event" => (4, &mut self.event),
            "name" => (5, &mut self.name),
            "groupId" => (6, &mut self.group_id),
            "timestamp" => (7, &mut self.timestamp),
            "originalTimestamp" => (8, &mut self.original_timestamp),
            "sentAt" => (9, &mut self.sent_at),
            _ => return None,
        })
    }
}

impl<'a> Properties<'a> {
    fn plain(rest: &mut Rest<'a>) -> Option<Self> {
        let mut segment = None;
        rest.object(|rest, name| match name {
            // A member that comes twice is left to the JSON parser, which refuses it.
            "segment" => segment.replace(text(rest)?).is_none().then_some(()),
            _ => rest.skip(),
        })?;
        Some(Self {
            segment: segment.flatten(),
        })
    }
}

/// The numbers of the members that an object has.
#[derive(Default)]
struct Seen(u32);

impl Seen {
    /// `None` if the member with this number came before, which the JSON parser refuses.
    fn first(&mut self, number: u32) -> Option<()> {
        let member = 1 << number;
        let is_first = self.0 & member == 0;
        self.0 |= member;
        is_first.then_some(())
    }
}

/// A string without escapes, or null.
fn text<'a>(rest: &mut Rest<'a>) -> Option<Option<Scalar<'a>>> {
    let text = rest.string_or_null()?;
    Some(text.map(|text| Scalar::Text(Cow::Borrowed(text))))
}

impl<'a> super::Written<'a> for Written<'a> {
    const USER: &'static str = "userId, or else anonymousId,";

    fn plain(rest: &mut Rest<'a>) -> Option<Self> {
        let mut message = Self::default();
        let mut seen = Seen::default();
        rest.object(|rest, name| {
            if let Some((number, member)) = message.text(name) {
                seen.first(number)?;
                *member = text(rest)?;
            } else if name == "properties" {
                seen.first(10)?;
                message.properties = Some(Properties::plain(rest)?);
            } else {
                rest.skip()?;
            }
            Some(())
        })?;
        Some(message)
    }

    fn read(self) -> Message<'a> {
        let made = match instant(self.timestamp.as_ref(), "timestamp") {
            Ok(None) => instant(self.original_timestamp.as_ref(), "originalTimestamp"),
            made => made,
        };
        let sent = instant(self.sent_at.as_ref(), "sentAt");
        let user_id = non_empty(self.user_id);
        let merge_from = match self.kind.as_ref().and_then(Scalar::text) {
            Some("alias") => non_empty(self.previous_id),
            Some("identify") if user_id.is_some() => non_empty(self.anonymous_id.clone()),
            _ => None,
        };
        Message {
            user: user_id.or_else(|| first([self.anonymous_id])),
            property: non_empty(self.properties.and_then(|it| it.segment)),
            event: non_empty(self.event),
            group_id: non_empty(self.group_id),
            name: non_empty(self.name),
            times: made.and_then(|made| Ok((made, sent?))),
            merge_from,
        }
    }
}
