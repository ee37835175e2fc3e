//! The variables of the environment, passed down from `main`.

use std::ffi::{OsStr, OsString};

use super::Failure;

/// A copy of the environment as the process was started with.
#[derive(Debug, Default)]
pub(super) struct Variables(Vec<(OsString, OsString)>);

impl Variables {
    pub(super) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// The value of a variable, if it is set and not empty.
    pub(super) fn get(&self, name: &str) -> Result<Option<String>, Failure> {
        let found = self.0.iter().find(|(key, _)| key == OsStr::new(name));
        let Some((_, value)) = found.filter(|(_, value)| !value.is_empty()) else {
            return Ok(None);
        };
        match value.to_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Failure::usage(format!("variable {name} is not UTF-8"))),
        }
    }

    pub(super) fn into_vec(self) -> Vec<(OsString, OsString)> {
        self.0
    }
}
