//! Events of PostHog's libraries.
//!
//! An event whose name begins with a dollar sign is one of PostHog itself, such as `$feature_flag_called`: its name is no segment.

use serde::Deserialize;

use super::{Message, instant, non_empty};
use crate::parse::scalar::Scalar;

#[derive(Deserialize)]
pub(super) struct Written<'a> {
    #[serde(borrow)]
    event: Option<Scalar<'a>>,
    #[serde(borrow)]
    distinct_id: Option<Scalar<'a>>,
    #[serde(borrow)]
    properties: Option<Properties<'a>>,
    #[serde(borrow)]
    timestamp: Option<Scalar<'a>>,
}

#[derive(Deserialize, Default)]
struct Properties<'a> {
    #[serde(borrow)]
    segment: Option<Scalar<'a>>,
    #[serde(borrow)]
    alias: Option<Scalar<'a>>,
    #[serde(borrow, rename = "$anon_distinct_id")]
    anonymous_id: Option<Scalar<'a>>,
    #[serde(borrow, rename = "$group_key")]
    group_key: Option<Scalar<'a>>,
    #[serde(borrow, rename = "$screen_name")]
    screen: Option<Scalar<'a>>,
}

#[derive(Deserialize)]
struct Keys<'a> {
    #[serde(borrow)]
    api_key: Option<Scalar<'a>>,
    #[serde(borrow)]
    token: Option<Scalar<'a>>,
}

impl<'a> super::Written<'a> for Written<'a> {
    const USER: &'static str = "distinct_id";

    fn read(self) -> Message<'a> {
        let made = instant(self.timestamp.as_ref(), "timestamp");
        let properties = self.properties.unwrap_or_default();
        let event = non_empty(self.event);
        let merge_from = match event.as_deref() {
            Some("$identify") => non_empty(properties.anonymous_id),
            Some("$create_alias") => non_empty(properties.alias),
            _ => None,
        };
        Message {
            user: non_empty(self.distinct_id),
            property: non_empty(properties.segment),
            event: event.filter(|name| !name.starts_with('$')),
            group_id: non_empty(properties.group_key),
            name: non_empty(properties.screen),
            times: made.map(|made| (made, None)),
            merge_from,
        }
    }
}

/// The project's key.
pub(super) fn token(text: &str) -> Result<Option<String>, serde_json::Error> {
    let keys: Keys = serde_json::from_str(text)?;
    let key = non_empty(keys.api_key).or_else(|| non_empty(keys.token));
    Ok(key.map(std::borrow::Cow::into_owned))
}
