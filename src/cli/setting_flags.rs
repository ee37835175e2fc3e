//! A flag for each setting, generated from the table of settings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::Failure;
use super::output::note;
use crate::config::{self, Loaded, SETTINGS, Sources, StoreKind, flag_of};

/// The settings file that is read if it exists and `--config` is not given.
const DEFAULT_FILE: &str = "headcount.toml";

/// `--config` and the settings that were given as flags.
#[derive(Debug, Clone, Default)]
pub(super) struct SettingFlags {
    config: Option<PathBuf>,
    given: Vec<(&'static str, String)>,
}

impl SettingFlags {
    /// No flags except `--config`, if given.
    pub(super) fn of_file(config: Option<PathBuf>) -> Self {
        Self {
            config,
            given: Vec::new(),
        }
    }

    /// Removes and returns the flag of a setting that has another meaning in this command.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.given.iter().position(|(given, _)| *given == name)?;
        Some(self.given.remove(at).1)
    }

    /// Merges all layers: defaults, file, `variables`, these flags. Warnings go to standard error.
    pub(super) fn load(self, variables: Vec<(OsString, OsString)>) -> Result<Loaded, Failure> {
        self.load_with(variables, Vec::new())
    }

    /// The same for a command that opens `stores` besides the configured one. Their required settings must be present.
    pub(super) fn load_with(
        self,
        variables: Vec<(OsString, OsString)>,
        stores: Vec<StoreKind>,
    ) -> Result<Loaded, Failure> {
        let loaded = self.merge(variables, stores)?;
        for warning in &loaded.warnings {
            note(&format!("warning: {warning}"));
        }
        Ok(loaded)
    }

    /// The same for a command with a log: it prints no warnings, and the caller logs them.
    pub(super) fn load_for_log(
        self,
        variables: Vec<(OsString, OsString)>,
    ) -> Result<Loaded, Failure> {
        self.merge(variables, Vec::new())
    }

    fn merge(
        self,
        variables: Vec<(OsString, OsString)>,
        stores: Vec<StoreKind>,
    ) -> Result<Loaded, Failure> {
        let present = || {
            let default = Path::new(DEFAULT_FILE);
            // If existence can't be checked, the file counts as present, and reading it reports the error.
            let exists = default.try_exists().unwrap_or(true);
            exists.then(|| default.to_owned())
        };
        Ok(config::load(Sources {
            file: self.config.or_else(present),
            variables,
            flags: self.given,
            stores,
        })?)
    }
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!(
                "Settings file [default: {DEFAULT_FILE} where present]"
            ));
        let mut command = command.arg(config);
        for setting in SETTINGS {
            let help = match setting.default {
                "" => capitalised(setting.help),
                default => format!("{} [default: {default}]", capitalised(setting.help)),
            };
            command = command.arg(flag(setting.name, "VALUE", help).help_heading(setting.group));
            if let Some(twin) = setting.file_twin {
                let help = format!("File to read --{} from", flag_of(setting.name));
                command = command.arg(flag(twin, "FILE", help).help_heading(setting.group));
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(name: &'static str, value: &'static str, help: String) -> Arg {
    Arg::new(name)
        .long(flag_of(name))
        .value_name(value)
        .help(help)
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = config::names()
            .filter_map(|name| Some((name, matches.get_one::<String>(name)?.clone())))
            .collect();
        Ok(Self {
            config: matches.get_one::<PathBuf>("config").cloned(),
            given,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
