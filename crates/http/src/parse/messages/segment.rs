//! Messages of the libraries of Segment and RudderStack.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Message, first, instant, non_empty};
use crate::parse::scalar::Scalar;

/// A call of one of these libraries.
#[derive(Deserialize)]
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

#[derive(Deserialize)]
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

impl<'a> super::Written<'a> for Written<'a> {
    const USER: &'static str = "userId, or else anonymousId,";

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
