//! The environment variables, passed down from `main`.

use std::ffi::{OsStr, OsString};

use super::Failure;
use super::output::sanitized;
use crate::config::{PREFIX, mistyped_for_clients};

/// A copy of the environment at the start of the process.
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

    /// Fails on a misspelt variable of the client commands. Otherwise the command would use another service or token than
    /// intended.
    pub(super) fn check_spelling(&self) -> Result<(), Failure> {
        for (variable, value) in &self.0 {
            let name = variable.to_str().and_then(|name| name.strip_prefix(PREFIX));
            let Some(name) = name.filter(|_| !value.is_empty()) else {
                continue;
            };
            if let Some(meant) = mistyped_for_clients(name) {
                return Err(Failure::usage(format!(
                    "unknown variable {PREFIX}{}: did you mean {meant}?",
                    sanitized(name)
                )));
            }
        }
        Ok(())
    }

    pub(super) fn into_vec(self) -> Vec<(OsString, OsString)> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str) -> Result<(), Failure> {
        Variables::new([(name.into(), value.into())]).check_spelling()
    }

    #[test]
    fn a_misspelt_variable_of_a_client_is_an_error() {
        for (wrong, right) in [
            ("HEADCOUNT_ULR", "HEADCOUNT_URL?"),
            ("HEADCOUNT_TOKN", "HEADCOUNT_TOKEN?"),
            ("HEADCOUNT_TOKENFILE", "HEADCOUNT_TOKEN_FILE?"),
        ] {
            let Err(Failure::Usage(said)) = check(wrong, "x") else {
                panic!("{wrong} passed")
            };
            assert!(said.ends_with(right), "{said}");
            assert!(check(wrong, "").is_ok(), "empty is unset");
        }
        for fine in [
            "HEADCOUNT_URL",
            "HEADCOUNT_TOKENS_FILE",
            "HEADCOUNT_LOG",
            "HEADCOUNT_BANANA",
            "URL",
        ] {
            assert!(check(fine, "x").is_ok(), "{fine}");
        }
    }
}
