//! What a row of the table of settings consists of, and [`settings!`], which generates the table and the parsed struct.

use super::rule::Valid;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The title of its group in help texts and files.
    pub group: &'static str,
    /// Its key in a file. The variable is `HEADCOUNT_` and the name in upper case; the flag is the name with dashes.
    pub name: &'static str,
    /// The default as a string; empty means that the setting is unset.
    pub default: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// For a secret: the name of its twin that names a file to read it from.
    pub file_twin: Option<&'static str>,
    /// A function, because a constant can't hold the strings that describe a range.
    pub(super) valid: fn() -> Valid,
}

impl Setting {
    /// Whether its value must not be shown.
    pub fn is_secret(&self) -> bool {
        self.file_twin.is_some()
    }

    /// What is valid, to complete "give ...".
    pub fn expects(&self) -> String {
        match (self.valid)() {
            Valid::As(description) => description.to_owned(),
            Valid::Range(kind, range) => format!("{kind} from {range}"),
        }
    }

    /// The least and the greatest value, such as `1s to 1h`; `None` if the setting has no range.
    pub fn range(&self) -> Option<String> {
        match (self.valid)() {
            Valid::As(_) => None,
            Valid::Range(_, range) => Some(range),
        }
    }
}

/// Generates [`SETTINGS`](super::SETTINGS) and [`Values`](super::table::Values) from rows in groups. A row is
/// `name: Type = "default", rule, "help";`
///
/// - An empty default means that the setting is unset; the type is then an `Option`.
/// - `secret` as the default marks a secret, which is unset by default. Its file twin is its name and `_file`.
/// - The rule is a [`Rule`](super::rule::Rule) of the type: a range, a [`Checked`](super::rule::Checked), or a description
///   of what the type or `check.rs` accepts.
macro_rules! settings {
    (@default secret) => { "" };
    (@default $default:literal) => { $default };
    (@twin $name:ident secret) => { Some(concat!(stringify!($name), "_file")) };
    (@twin $name:ident $default:literal) => { None };
    ($($group:literal { $($name:ident: $type:ty = $default:tt, $rule:expr, $help:literal;)* })*) => {
        /// All settings, in the order in which they are displayed.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            group: $group,
            name: stringify!($name),
            default: settings!(@default $default),
            help: $help,
            file_twin: settings!(@twin $name $default),
            valid: || Rule::<$type>::valid(&$rule),
        },)*)*];

        /// The settings as parsed. The struct is flat because `envy` does not support nested structs.
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct Parsed {
            $($($name: $type,)*)*
        }

        /// The settings that their rules allow. It is a struct of its own so that the compiler reports unused settings:
        /// every field of [`Parsed`] is read here.
        pub(super) struct Values {
            $($(pub(super) $name: $type,)*)*
        }

        impl Parsed {
            /// The error is the name of the first setting whose value its rule does not allow.
            pub(super) fn checked(self) -> Result<Values, &'static str> {
                $($(if !Rule::<$type>::allows(&$rule, &self.$name) {
                    return Err(stringify!($name));
                })*)*
                Ok(Values { $($($name: self.$name,)*)* })
            }
        }
    };
}
pub(super) use settings;
