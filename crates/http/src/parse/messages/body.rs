//! A body with messages: usually read in one pass. If a message in it is not well-formed, they are read one by one, so that it does not affect
//! the others.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Context, Taken, Written, instant};
use crate::parse::BadBody;
use crate::parse::rest::Rest;
use crate::parse::scalar::Scalar;
use domain::Timestamp;

/// The bytes of a message, for the capacity of buffers: fewer are unusual.
const USUAL_BYTES: usize = 200;

/// What a body has.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// What the members of a user's id are called.
    pub(super) user_is_called: &'static str,
    /// The messages that matter, and those that are none.
    pub(super) entries: Vec<Result<Taken<'a>, serde_json::Error>>,
    /// The number of messages without a segment and a merge.
    pub(super) ignored: usize,
    /// When the body was sent, if it says so.
    pub(super) sent: Option<Timestamp>,
}

impl<'a> Found<'a> {
    fn nothing<M: Written<'a>>() -> Self {
        Self {
            user_is_called: M::USER,
            entries: Vec::new(),
            ignored: 0,
            sent: None,
        }
    }

    fn add<M: Written<'a>>(&mut self, message: M, context: Context<'_>) {
        match message.read().by(context) {
            Some(taken) => self.entries.push(Ok(taken)),
            None => self.ignored += 1,
        }
    }

    /// A message that may not be well-formed, changed by `complete`.
    fn add_raw<M: Written<'a>>(
        &mut self,
        text: &'a str,
        context: Context<'_>,
        complete: impl FnOnce(&mut M),
    ) {
        match serde_json::from_str::<M>(text) {
            Ok(mut message) => {
                complete(&mut message);
                self.add(message, context);
            }
            Err(error) => self.entries.push(Err(error)),
        }
    }

    /// A time of sending that is no instant is ignored, because the messages have times of their own.
    fn sent_at(&mut self, value: Option<&Scalar<'_>>) {
        self.sent = instant(value, "sentAt").ok().flatten();
    }
}

/// One message, changed by `complete`.
pub(super) fn one<'a, M: Written<'a>>(
    text: &'a str,
    context: Context<'_>,
    complete: impl FnOnce(&mut M),
) -> Result<Found<'a>, BadBody> {
    let message: &RawValue = serde_json::from_str(text)?;
    let mut found = Found::nothing::<M>();
    found.add_raw(message.get(), context, complete);
    Ok(found)
}

/// An object with a list of messages.
pub(super) fn batch<'a, M: Written<'a>>(
    text: &'a str,
    context: Context<'_>,
) -> Result<Found<'a>, BadBody> {
    match in_one_pass::<M>(text, context) {
        Some(found) => Ok(found),
        None => one_by_one::<M>(text, context),
    }
}

/// Reads a body of well-formed messages; `None` for any other one.
pub(super) fn in_one_pass<'a, M: Written<'a>>(
    text: &'a str,
    context: Context<'_>,
) -> Option<Found<'a>> {
    let mut rest = Rest::of(text);
    let mut found = Found::nothing::<M>();
    let (mut lists, mut times) = (0, 0);
    rest.object(|rest, name| match name {
        "batch" | "data" => {
            lists += 1;
            found.entries.reserve(text.len() / USUAL_BYTES);
            rest.array(|rest| {
                let start = *rest;
                let message = M::plain(rest).or_else(|| {
                    *rest = start;
                    rest.value()
                });
                found.add(message?, context);
                Some(())
            })
        }
        "sentAt" | "sent_at" => {
            times += 1;
            let sent: Option<Scalar> = rest.value()?;
            found.sent_at(sent.as_ref());
            Some(())
        }
        _ => rest.skip(),
    })?;
    (rest.is_blank() && lists == 1 && times <= 1).then_some(found)
}

pub(super) fn one_by_one<'a, M: Written<'a>>(
    text: &'a str,
    context: Context<'_>,
) -> Result<Found<'a>, BadBody> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow, alias = "data")]
        batch: Vec<&'a RawValue>,
        #[serde(borrow, rename = "sentAt", alias = "sent_at")]
        sent_at: Option<Scalar<'a>>,
    }
    let Batch { batch, sent_at } = serde_json::from_str(text)?;
    let mut found = Found::nothing::<M>();
    found.sent_at(sent_at.as_ref());
    for message in batch {
        found.add_raw(message.get(), context, |_: &mut M| {});
    }
    Ok(found)
}
