//! A body with messages: usually read in one pass. If a message in it is not well-formed, they are read one by one, so that it does not affect
//! the others.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{MessageRules, Taken, Written, instant};
use crate::parse::BadBody;
use crate::parse::scalar::Scalar;
use domain::Timestamp;

/// What a body has.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    /// The messages that matter, and those that are none.
    pub(super) entries: Vec<Result<Taken<'a>, serde_json::Error>>,
    /// The number of messages without a segment and a merge.
    pub(super) ignored: usize,
    /// When the body was sent, if it says so.
    pub(super) sent: Option<Timestamp>,
}

impl<'a> Found<'a> {
    fn add<M: Written<'a>>(&mut self, message: M, rules: &MessageRules) {
        match message.read().by(rules, M::USER) {
            Some(taken) => self.entries.push(Ok(taken)),
            None => self.ignored += 1,
        }
    }

    /// A message that may not be well-formed, changed by `complete`.
    fn add_raw<M: Written<'a>>(
        &mut self,
        text: &'a str,
        rules: &MessageRules,
        complete: impl FnOnce(&mut M),
    ) {
        match serde_json::from_str::<M>(text) {
            Ok(mut message) => {
                complete(&mut message);
                self.add(message, rules);
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
    rules: &MessageRules,
    complete: impl FnOnce(&mut M),
) -> Result<Found<'a>, BadBody> {
    let message: &RawValue = serde_json::from_str(text)?;
    let mut found = Found::default();
    found.add_raw(message.get(), rules, complete);
    Ok(found)
}

/// An object with a list of messages.
pub(super) fn batch<'a, M: Written<'a>>(
    text: &'a str,
    rules: &MessageRules,
) -> Result<Found<'a>, BadBody> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = Body::<M>(rules, PhantomData).deserialize(&mut json);
    match read.and_then(|found| json.end().map(|()| found)) {
        Ok(found) => Ok(found),
        Err(_) => one_by_one::<M>(text, rules),
    }
}

fn one_by_one<'a, M: Written<'a>>(
    text: &'a str,
    rules: &MessageRules,
) -> Result<Found<'a>, BadBody> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow, alias = "data")]
        batch: Vec<&'a RawValue>,
        #[serde(borrow, rename = "sentAt", alias = "sent_at")]
        sent_at: Option<Scalar<'a>>,
    }
    let Batch { batch, sent_at } = serde_json::from_str(text)?;
    let mut found = Found::default();
    found.sent_at(sent_at.as_ref());
    for message in batch {
        found.add_raw(message.get(), rules, |_: &mut M| {});
    }
    Ok(found)
}

/// Reads a whole body.
struct Body<'r, M>(&'r MessageRules, PhantomData<M>);

/// Reads the list in it.
struct List<'r, 'f, 'a, M>(&'r MessageRules, &'f mut Found<'a>, PhantomData<M>);

impl<'a, M: Written<'a>> DeserializeSeed<'a> for Body<'_, M> {
    type Value = Found<'a>;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'a, M: Written<'a>> Visitor<'a> for Body<'_, M> {
    type Value = Found<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a list of messages")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::default();
        let (mut lists, mut times) = (0, 0);
        while let Some(name) = map.next_key::<Cow<'a, str>>()? {
            match &*name {
                "batch" | "data" => {
                    lists += 1;
                    map.next_value_seed(List::<M>(self.0, &mut found, PhantomData))?;
                }
                "sentAt" | "sent_at" => {
                    times += 1;
                    let sent: Option<Scalar> = map.next_value()?;
                    found.sent_at(sent.as_ref());
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match (lists, times) {
            (1, 0 | 1) => Ok(found),
            _ => Err(serde::de::Error::custom("not one list of messages")),
        }
    }
}

impl<'a, M: Written<'a>> DeserializeSeed<'a> for List<'_, '_, 'a, M> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'a, M: Written<'a>> Visitor<'a> for List<'_, '_, 'a, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of messages")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(message) = list.next_element::<M>()? {
            self.1.add(message, self.0);
        }
        Ok(())
    }
}
