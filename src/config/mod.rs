//! Settings: defaults, then a TOML file, then `HEADCOUNT_*` variables, then flags.
//!
//! All layers are flattened into strings by name, so that one parser and one set of messages serve them all.
//! The result is typed and valid. Nothing here reads or changes the process's environment.

mod check;
mod env;
mod error;
mod file;
mod layers;
mod protection;
mod row;
mod rule;
mod settings;
mod spelling;
mod table;
mod typed;
mod warnings;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use env::mistyped_for_clients;
pub use error::ConfigError;
pub use layers::Origin;
pub use row::Setting;
pub use settings::{
    CacheKind, CacheSettings, InfluxSettings, IngestSettings, LiveMode, LiveSettings,
    RedisSettings, RefreshMode, RefreshSettings, Settings, StoreKind, StoreSettings,
};
pub use spelling::{PREFIX, flag_of, names, variable_of};
pub use table::SETTINGS;

use domain::HIDDEN;
use http::auth::AuthMode;
use layers::Layers;

/// Where settings come from besides the defaults.
#[derive(Debug, Default)]
pub struct Sources {
    /// The settings file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment variables. Only those that begin with `HEADCOUNT_` are used.
    pub variables: Vec<(OsString, OsString)>,
    /// The flags given, by the name of their setting.
    pub flags: Vec<(&'static str, String)>,
    /// The stores that will be opened besides the configured one. The settings that each needs must be present as well.
    pub stores: Vec<StoreKind>,
}

/// The settings, with the source of each.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Each setting as a string, in the order of [`SETTINGS`].
    pub shown: Vec<Shown>,
    /// Warnings about settings that are valid but probably unintended, a sentence each.
    pub warnings: Vec<String>,
}

/// One setting as it may be displayed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Shown {
    /// The setting's name.
    pub name: &'static str,
    /// Its value as a string; [`HIDDEN`] for a secret that is set.
    pub value: String,
    /// The source of the value.
    pub origin: String,
}

impl Loaded {
    /// Whether a service may listen with these settings. An address other than loopback requires tokens or JWTs, or an
    /// explicit `auth = "off"`. The error is [`ConfigError::Unprotected`].
    pub fn may_serve(&self) -> Result<(), ConfigError> {
        let auth = &self.settings.auth;
        if auth.is_on() || auth.mode == AuthMode::Off {
            return Ok(());
        }
        let addresses = [
            ("listen", Some(self.settings.listen)),
            ("public_listen", self.settings.public_listen),
        ];
        for (name, address) in addresses {
            // `::ffff:127.0.0.1` is loopback too.
            let Some(listen) = address.filter(|it| !it.ip().to_canonical().is_loopback()) else {
                continue;
            };
            let shown = self.shown.iter().find(|shown| shown.name == name);
            return Err(ConfigError::Unprotected {
                name,
                listen,
                origin: shown.map_or_else(String::new, |shown| shown.origin.clone()),
            });
        }
        Ok(())
    }
}

/// Reads a secret from a file, without the final line end. The error completes "the file, which ...".
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
    /// The defaults, with some settings given by the calling program as strings by name.
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
    let settings = typed::settings(&layers, stores)?;
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
