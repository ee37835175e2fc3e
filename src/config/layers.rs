//! Layers of settings as strings. A later layer replaces the values of an earlier one and records its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::ConfigError;
use super::row::Setting;
use super::spelling::{find, known, nearest};
use super::table::SETTINGS;
use domain::HIDDEN;
use domain::text::without_credentials;

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default: no layer gave a value.
    Default,
    /// A settings file, with the line from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A command-line flag, with its dashes.
    Flag(String),
    /// The program that uses this library.
    Program,
    /// A file that holds a secret, and the layer that named the file.
    SecretFile(PathBuf, Box<Origin>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
            Self::Program => f.write_str("program"),
            Self::SecretFile(path, by) => write!(f, "{}, named by {by}", path.display()),
        }
    }
}

/// A value as a string, and its source. No `Debug`: the value may be secret.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The merged layers: the current value of each setting, by name.
#[derive(Clone)]
pub(super) struct Layers(BTreeMap<&'static str, Value>);

impl Layers {
    /// The lowest layer.
    pub(super) fn defaults() -> Self {
        let default = |setting: &Setting| Value {
            text: setting.default.to_owned(),
            origin: Origin::Default,
        };
        Self(SETTINGS.iter().map(|s| (s.name, default(s))).collect())
    }

    /// Sets `name` in the current layer. `spell` converts a known name to the spelling of this layer, for errors.
    pub(super) fn set(
        &mut self,
        name: &str,
        text: &str,
        origin: Origin,
        spell: impl Fn(&str) -> String,
    ) -> Result<(), ConfigError> {
        let Some(name) = known(name) else {
            return Err(ConfigError::Unknown {
                name: spell(name),
                origin,
                nearest: nearest(name).map(spell),
            });
        };
        let text = text.to_owned();
        self.0.insert(name, Value { text, origin });
        Ok(())
    }

    /// Copies the value of `name` from `other`.
    pub(super) fn replace(&mut self, name: &'static str, other: &Self) {
        self.0.insert(name, other.get(name).clone());
    }

    /// Reads each secret whose twin names a file.
    pub(super) fn read_secret_files(&mut self) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let Some(twin) = setting.file_twin else {
                continue;
            };
            // An empty file name unsets the twin, so that a flag can override a settings file.
            let Some(named) = self.0.remove(twin).filter(|named| !named.text.is_empty()) else {
                continue;
            };
            let present = self.get(setting.name);
            if present.origin != Origin::Default {
                return Err(ConfigError::Both {
                    name: setting.name,
                    origin: present.origin.clone(),
                    twin,
                    twin_origin: named.origin,
                });
            }
            let path = PathBuf::from(&named.text);
            let text =
                super::file::read_secret(&path).map_err(|problem| ConfigError::SecretFile {
                    name: twin,
                    origin: named.origin.clone(),
                    path: path.clone(),
                    problem,
                })?;
            let origin = Origin::SecretFile(path, Box::new(named.origin));
            self.0.insert(setting.name, Value { text, origin });
        }
        Ok(())
    }

    /// Refuses a required setting, such as a directory, that a file or a flag left empty.
    pub(super) fn refuse_empty(&self) -> Result<(), ConfigError> {
        let empty = |(setting, text): &(&Setting, &str)| text.is_empty() && !setting.is_secret();
        match self.texts().find(empty) {
            Some((setting, _)) => Err(self.unexpected(setting.name)),
            None => Ok(()),
        }
    }

    /// The values to parse: those that are set, trimmed unless they are secrets.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static Setting, &str)> {
        SETTINGS.iter().filter_map(|setting| {
            let value = self.get(setting.name);
            let text = value.text.as_str();
            let text = if setting.is_secret() {
                text
            } else {
                text.trim()
            };
            // An empty secret in a file or a flag is a mistake and must not silently unset the setting. Its check
            // reports it.
            let given = setting.is_secret() && value.origin != Origin::Default;
            let off = text.is_empty() && setting.default.is_empty() && !given;
            (!off).then_some((setting, text))
        })
    }

    /// The value of a setting.
    pub(super) fn get(&self, name: &str) -> &Value {
        static NONE: Value = Value {
            text: String::new(),
            origin: Origin::Default,
        };
        self.0.get(name).unwrap_or(&NONE)
    }

    /// The error for a value of the setting `name` that is not what its row expects.
    pub(super) fn unexpected(&self, name: &str) -> ConfigError {
        let expects = find(name).map(Setting::expects);
        self.bad(name, expects.unwrap_or_default())
    }

    /// The error for an invalid value of the setting `name`.
    pub(super) fn bad(&self, name: &str, right: impl Into<String>) -> ConfigError {
        let Some(setting) = find(name) else {
            return ConfigError::Inconsistent(format!("no setting is named {name}"));
        };
        let value = self.get(setting.name);
        let shown = match (value.text.as_str(), setting.is_secret()) {
            ("", _) => "empty".to_owned(),
            (_, true) => HIDDEN.to_owned(),
            (text, false) if setting.name.ends_with("_url") => {
                format!("{:?}", without_credentials(text))
            }
            (text, false) => format!("{text:?}"),
        };
        ConfigError::Bad {
            name: setting.name,
            value: shown,
            origin: value.origin.clone(),
            right: right.into(),
        }
    }
}
