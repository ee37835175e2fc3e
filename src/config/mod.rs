//! Settings: defaults, then a TOML file, then `HEADCOUNT_*` variables, then flags.
//!
//! All layers are flattened into texts by name, so that one parser and one set of messages serve them all;
//! what comes out is typed and valid. Nothing here reads or changes the environment by itself.

mod check;
mod env;
mod error;
mod file;
mod layers;
mod protection;
mod raw;
mod settings;
mod table;
mod warnings;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use env::mistyped_for_clients;
pub use error::ConfigError;
pub use layers::Origin;
pub use settings::{
    CacheKind, CacheSettings, InfluxSettings, IngestSettings, RedisSettings, RefreshMode,
    RefreshSettings, Settings, StoreKind, StoreSettings,
};
pub use table::{PREFIX, SETTINGS, Setting, flag_of, names, page_row, variable_of};

use domain::HIDDEN;
use http::auth::AuthMode;
use layers::Layers;

/// Where settings come from besides the defaults.
#[derive(Debug, Default)]
pub struct Sources {
    /// The settings file, if there is one.
    pub file: Option<PathBuf>,
    /// The variables of the environment; only those that begin with `HEADCOUNT_` are looked at.
    pub variables: Vec<(OsString, OsString)>,
    /// The flags given, by the name of their setting.
    pub flags: Vec<(&'static str, String)>,
    /// The stores that will be opened besides the configured one: what each needs must be set as well.
    pub stores: Vec<StoreKind>,
}

/// The settings, with the account of where each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Each setting as text, in the order of [`SETTINGS`].
    pub shown: Vec<Shown>,
    /// What is allowed and yet probably not what somebody wants, a sentence each.
    pub warnings: Vec<String>,
}

/// One setting as people may see it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Shown {
    /// The setting's name.
    pub name: &'static str,
    /// Its text; [`HIDDEN`] for a secret that is set.
    pub value: String,
    /// Who gave it.
    pub origin: String,
}

impl Loaded {
    /// Whether a service may listen with these settings: beyond this machine only where it asks for tokens, or
    /// where somebody said that it need not.
    pub fn may_serve(&self) -> Result<(), ConfigError> {
        let listen = self.settings.listen;
        let auth = &self.settings.auth;
        // `::ffff:127.0.0.1` is this machine too.
        if auth.is_on() || auth.mode == AuthMode::Off || listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let shown = self.shown.iter().find(|shown| shown.name == "listen");
        Err(ConfigError::Unprotected {
            listen,
            origin: shown.map_or_else(String::new, |shown| shown.origin.clone()),
        })
    }
}

/// The secret in a file, for commands that take one. The error completes "the file, which ...".
pub fn read_secret(path: &Path) -> Result<String, String> {
    file::read_secret(path)
}

/// Merges the layers, parses and checks them.
pub fn load(sources: Sources) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::defaults();
    if let Some(path) = &sources.file {
        file::add(&mut layers, path)?;
    }
    let mut warnings = env::add(&mut layers, sources.variables)?;
    for (name, text) in &sources.flags {
        let spell = |name: &str| format!("--{}", flag_of(name));
        layers.set(name, text, Origin::Flag(spell(name)), spell)?;
    }
    warnings.extend(warnings::secret_flags(&layers));
    let mut loaded = finish(layers, &sources.stores)?;
    loaded.warnings.splice(0..0, warnings);
    Ok(loaded)
}

impl Settings {
    /// The defaults with some settings given by the calling program, as texts by name.
    pub fn with<'a>(
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::defaults();
        for (name, text) in given {
            layers.set(name, text, Origin::Program, str::to_owned)?;
        }
        Ok(finish(layers, &[])?.settings)
    }
}

fn finish(mut layers: Layers, stores: &[StoreKind]) -> Result<Loaded, ConfigError> {
    layers.read_secret_files()?;
    layers.refuse_empty()?;
    let settings = raw::settings(&layers, stores)?;
    let warnings = warnings::of(&settings, &layers, stores);
    let shown = SETTINGS
        .iter()
        .map(|setting| {
            let value = layers.get(setting.name);
            let hidden = setting.is_secret() && !value.text.is_empty();
            Shown {
                name: setting.name,
                value: if hidden {
                    HIDDEN.to_owned()
                } else {
                    value.text.clone()
                },
                origin: value.origin.to_string(),
            }
        })
        .collect();
    Ok(Loaded {
        settings,
        shown,
        warnings,
    })
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
