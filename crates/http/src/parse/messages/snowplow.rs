//! Events of Snowplow's trackers, in the protocol of version 2: members have short names, and all values are strings.
//!
//! A structured event (`se`) of the category `segment` is a property `segment` with the event's action; otherwise the action is the
//! name of the event.

use serde::Deserialize;

use super::{Message, first, non_empty};
use crate::parse::scalar::Scalar;
use domain::Timestamp;

#[derive(Deserialize)]
pub(super) struct Written<'a> {
    /// The type: `se` for a structured event, `pv` for a page view.
    #[serde(borrow)]
    e: Option<Scalar<'a>>,
    #[serde(borrow)]
    se_ca: Option<Scalar<'a>>,
    #[serde(borrow)]
    se_ac: Option<Scalar<'a>>,
    /// The title of a page.
    #[serde(borrow)]
    page: Option<Scalar<'a>>,
    /// The user, as the site knows them.
    #[serde(borrow)]
    uid: Option<Scalar<'a>>,
    /// The browser, by a cookie of the site, and by one of the collector.
    #[serde(borrow)]
    duid: Option<Scalar<'a>>,
    #[serde(borrow)]
    nuid: Option<Scalar<'a>>,
    /// When the event was made: as the site says, and by the clock of the device.
    #[serde(borrow)]
    ttm: Option<Scalar<'a>>,
    #[serde(borrow)]
    dtm: Option<Scalar<'a>>,
    /// When it was sent.
    #[serde(borrow)]
    stm: Option<Scalar<'a>>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    data: Vec<Application<'a>>,
}

#[derive(Deserialize)]
struct Application<'a> {
    #[serde(borrow)]
    aid: Option<Scalar<'a>>,
}

impl<'a> super::Written<'a> for Written<'a> {
    const USER: &'static str = "uid, or else duid or nuid,";

    fn read(self) -> Message<'a> {
        // What the site says is right already.
        let times = match milliseconds(self.ttm.as_ref(), "ttm") {
            Ok(Some(made)) => Ok((Some(made), None)),
            Ok(None) => milliseconds(self.dtm.as_ref(), "dtm")
                .and_then(|made| Ok((made, milliseconds(self.stm.as_ref(), "stm")?))),
            Err(name) => Err(name),
        };
        let is =
            |value: &Option<Scalar<'_>>, text| value.as_ref().and_then(Scalar::text) == Some(text);
        let action = match is(&self.e, "se") {
            true => non_empty(self.se_ac),
            false => None,
        };
        Message {
            user: first([self.uid, self.duid, self.nuid]),
            property: action.clone().filter(|_| is(&self.se_ca, "segment")),
            event: action,
            group_id: None,
            name: non_empty(self.page),
            times,
            merge_from: None,
        }
    }
}

/// The unix milliseconds in `value`. The error is `name`.
fn milliseconds(
    value: Option<&Scalar<'_>>,
    name: &'static str,
) -> Result<Option<Timestamp>, &'static str> {
    let parse = |value: &Scalar<'_>| {
        let number = value.text().and_then(|text| text.parse().ok());
        let instant = number.and_then(|number| Timestamp::from_millisecond(number).ok());
        instant.ok_or(name)
    };
    value.map(parse).transpose()
}

/// The application's id, which the site chooses: a tracker sends no other credential.
pub(super) fn token(text: &str) -> Result<Option<String>, serde_json::Error> {
    let payload: Payload = serde_json::from_str(text)?;
    let id = payload
        .data
        .into_iter()
        .find_map(|event| non_empty(event.aid));
    Ok(id.map(std::borrow::Cow::into_owned))
}
