//! Errors of settings: what is wrong, the source of the value, and what is valid.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::layers::Origin;

/// Why the settings can't be used. No message contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A layer gives a setting that does not exist.
    #[error("unknown setting `{name}` ({origin}){}", suggestion(.nearest))]
    Unknown {
        /// The name as given.
        name: String,
        /// The layer that gave it.
        origin: Origin,
        /// The nearest existing name, spelt as in that layer.
        nearest: Option<String>,
    },
    /// A value is not of the right kind or out of range.
    #[error("setting `{name}` is {value} ({origin}): give {right}")]
    Bad {
        /// The setting's name.
        name: &'static str,
        /// The value in quotes, or a placeholder for a secret.
        value: String,
        /// The layer that gave it.
        origin: Origin,
        /// What is valid, to complete "give ...".
        right: String,
    },
    /// A secret and the file to read it from are both given.
    #[error("settings `{name}` ({origin}) and `{twin}` ({twin_origin}) are both given: give one")]
    Both {
        /// The secret's name.
        name: &'static str,
        /// The layer that gave the secret.
        origin: Origin,
        /// The name of its file twin.
        twin: &'static str,
        /// The layer that gave the twin.
        twin_origin: Origin,
    },
    /// The file with a secret can't be used.
    #[error("setting `{name}` ({origin}) names the file {path}, which {problem}")]
    SecretFile {
        /// The file twin that names the file.
        name: &'static str,
        /// The layer that gave it.
        origin: Origin,
        /// The file's path.
        path: PathBuf,
        /// What is wrong with it, to complete "which ...".
        problem: String,
    },
    /// The service would accept requests from other machines without a token.
    #[error(
        "setting `{name}` is \"{listen}\" ({origin}), which other machines can reach, and no token would be required: give \
         `tokens_file` (`headcount token new` makes one) or `jwt_key`, or a loopback address, or state `auth = \"off\"`"
    )]
    Unprotected {
        /// The setting's name.
        name: &'static str,
        /// The address to listen on.
        listen: SocketAddr,
        /// The source of the address, as displayed.
        origin: String,
    },
    /// A variable's value is not UTF-8.
    #[error("variable {0} is not UTF-8: give its value as UTF-8 text")]
    NotUtf8(String),
    /// A bug in the table of settings or in a check.
    #[error("settings can't be parsed: {0}")]
    Inconsistent(String),
    /// The settings file can't be read.
    #[error("can't read the settings file {path}: {problem}")]
    File {
        /// The file's path.
        path: PathBuf,
        /// What is wrong with it, with the line if there is one.
        problem: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!(": did you mean `{name}`?"),
        None => ": `headcount check-config` lists those that exist".into(),
    }
}
