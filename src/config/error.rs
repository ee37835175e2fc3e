//! What is wrong with a setting, where it came from and what would be right.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::layers::Origin;

/// Why the settings can't be used. No secret is in the text.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A layer gives a setting that does not exist.
    #[error("unknown setting `{name}` ({origin}){}", suggestion(.nearest))]
    Unknown {
        /// The name as given.
        name: String,
        /// Who gave it.
        origin: Origin,
        /// The existing name that was perhaps meant, spelt as that layer spells it.
        nearest: Option<String>,
    },
    /// A value is not of the right kind or out of range.
    #[error("setting `{name}` is {value} ({origin}): give {right}")]
    Bad {
        /// The setting.
        name: &'static str,
        /// The value in quotes, or what stands for it where it is secret.
        value: String,
        /// Who gave it.
        origin: Origin,
        /// What would be right.
        right: String,
    },
    /// A secret and the file to read it from are both given.
    #[error("settings `{name}` ({origin}) and `{twin}` ({twin_origin}) are both given: give one")]
    Both {
        /// The secret.
        name: &'static str,
        /// Who gave it.
        origin: Origin,
        /// Its twin.
        twin: &'static str,
        /// Who gave the twin.
        twin_origin: Origin,
    },
    /// The file with a secret can't be used.
    #[error("setting `{name}` ({origin}) names the file {path}, which {problem}")]
    SecretFile {
        /// The twin that names the file.
        name: &'static str,
        /// Who gave it.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The service would be open to whoever reaches it.
    #[error(
        "setting `listen` is \"{listen}\" ({origin}), which others can reach, and no token would be asked for: give \
         `tokens_file` (`headcount token new` makes one) or `jwt_key`, or a loopback address, or state `auth = \"off\"`"
    )]
    Unprotected {
        /// The address.
        listen: SocketAddr,
        /// Who gave it.
        origin: String,
    },
    /// A variable's value is not UTF-8.
    #[error("variable {0} is not UTF-8: give its value as UTF-8 text")]
    NotUtf8(String),
    /// The program disagrees with itself about what settings there are.
    #[error("settings can't be parsed: {0}")]
    Inconsistent(String),
    /// The settings file can't be read.
    #[error("can't read the settings file {path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!(": did you mean `{name}`?"),
        None => ": `headcount check-config` lists those that exist".into(),
    }
}
