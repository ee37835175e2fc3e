//! The settings of one segment, and their form in the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use domain::{InvalidSegment, InvalidWindow, Segment, TimeFrame, Window};

/// The maximum length of a description in bytes.
const DESCRIPTION_BYTES: usize = 1_000;

/// What an administrator sets for a segment. The default is that of a segment without settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentSettings {
    window: Option<Window>,
    description: Option<String>,
    group: Option<String>,
}

/// Why settings are not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// The window is not one of the configured frame.
    #[error(transparent)]
    Window(#[from] InvalidWindow),
    /// The description is too long.
    #[error("description has {0} bytes; at most {DESCRIPTION_BYTES} are allowed")]
    LongDescription(usize),
    /// The description has a control character.
    #[error("description has a control character")]
    ControlCharacter,
    /// The group is not valid as a name.
    #[error("group must follow the rules of a segment's name: {0}")]
    Group(InvalidSegment),
}

/// The value of the property. Fields that a later version adds are ignored.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    #[serde(skip_serializing_if = "Option::is_none")]
    window_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

impl SegmentSettings {
    /// Validates settings. Without `window` the configured one applies. An empty description or group is none.
    pub fn new(
        frame: &TimeFrame,
        window: Option<Duration>,
        description: Option<String>,
        group: Option<String>,
    ) -> Result<Self, InvalidSettings> {
        let window = window.map(|window| frame.window(window)).transpose()?;
        let description = description.filter(|text| !text.is_empty());
        if let Some(text) = &description {
            if text.len() > DESCRIPTION_BYTES {
                return Err(InvalidSettings::LongDescription(text.len()));
            }
            if text.contains(char::is_control) {
                return Err(InvalidSettings::ControlCharacter);
            }
        }
        let group = group.filter(|name| !name.is_empty());
        if let Some(name) = &group {
            Segment::received(name).map_err(InvalidSettings::Group)?;
        }
        Ok(Self {
            window,
            description,
            group,
        })
    }

    /// The default window of counts; `None` for the configured one.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// A description for people.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The group in which lists show the segment.
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// The value of the property; `None` if nothing is set.
    pub(super) fn to_value(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let stored = Stored {
            window_seconds: self.window.map(Window::seconds),
            description: self.description.clone(),
            group: self.group.clone(),
        };
        serde_json::to_string(&stored).ok()
    }

    /// Reads the value of a property. A window that the configured frame no longer allows is left out, which is logged.
    pub(super) fn of_value(frame: &TimeFrame, segment: &Segment, value: &str) -> Self {
        let stored: Stored = serde_json::from_str(value).unwrap_or_else(|error| {
            tracing::warn!(%segment, %error, "the settings of a segment can't be read; it has none");
            Stored::default()
        });
        let window = stored.window_seconds.map(Duration::from_secs);
        let window = window.and_then(|window| {
            let valid = frame.window(window);
            let warn = |error: &InvalidWindow| {
                tracing::warn!(%segment, %error, "the window of a segment is not valid; the configured one applies");
            };
            valid.inspect_err(warn).ok()
        });
        Self {
            window,
            description: stored.description,
            group: stored.group,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::store::PROPERTY_VALUE_BYTES;
    use domain::store::conformance::frame;

    #[test]
    fn what_is_stored_is_what_was_set() {
        let frame = frame(60);
        let segment = Segment::new("s").unwrap();
        let text = |length: usize| Some("\"".repeat(length));
        let hour = Some(Duration::from_hours(1));
        let longest = SegmentSettings::new(&frame, hour, text(1_000), text(128)).unwrap();
        let value = longest.to_value().unwrap();
        assert!(value.len() <= PROPERTY_VALUE_BYTES, "{}", value.len());
        assert_eq!(SegmentSettings::of_value(&frame, &segment, &value), longest);
        let none = SegmentSettings::new(&frame, None, text(0), text(0)).unwrap();
        assert_eq!(none, SegmentSettings::default());
        assert_eq!(none.to_value(), None);
        let later = r#"{"window_seconds":120,"color":"red"}"#;
        let later = SegmentSettings::of_value(&frame, &segment, later);
        assert_eq!(later.window().map(Window::seconds), Some(120));
        for value in [
            "",
            "7",
            r#"{"window_seconds":7000}"#,
            r#"{"window_seconds":0}"#,
        ] {
            let read = SegmentSettings::of_value(&frame, &segment, value);
            assert_eq!(read, SegmentSettings::default(), "{value}");
        }
    }

    #[test]
    fn settings_have_limits() {
        let frame = frame(60);
        let of = |seconds: Option<u64>, description: &str, group: &str| {
            let window = seconds.map(Duration::from_secs);
            let texts = [description, group].map(|text| Some(text.to_owned()));
            let [description, group] = texts;
            SegmentSettings::new(&frame, window, description, group).map(|_| ())
        };
        assert_eq!(of(Some(60), "Everyone who buys", "shop"), Ok(()));
        for seconds in [0, 61, 3_660] {
            let refused = of(Some(seconds), "", "");
            assert!(
                matches!(refused, Err(InvalidSettings::Window(_))),
                "{seconds}"
            );
        }
        let long = "d".repeat(1_001);
        assert_eq!(
            of(None, &long, ""),
            Err(InvalidSettings::LongDescription(1_001))
        );
        assert_eq!(of(None, "a\nb", ""), Err(InvalidSettings::ControlCharacter));
        for group in [" shop", "a\tb", &"g".repeat(129)] {
            let refused = of(None, "", group);
            assert!(
                matches!(refused, Err(InvalidSettings::Group(_))),
                "{group:?}"
            );
        }
    }
}
