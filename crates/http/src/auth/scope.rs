//! The scopes of tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A permission of a token. No scope includes another: a token that may erase users can't read counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Read counts, segments, trends and events, which have no user ids.
    Read,
    /// Send pairs.
    Write,
    /// List the segments of one user.
    Users,
    /// Erase one user.
    Erase,
    /// Refresh and archive: the jobs of schedulers.
    Admin,
    /// List the users of a segment.
    Export,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Write,
        Self::Users,
        Self::Erase,
        Self::Admin,
        Self::Export,
    ];

    /// The name in JWTs, the tokens file and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Users => "users",
            Self::Erase => "erase",
            Self::Admin => "admin",
            Self::Export => "export",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether `scope` is among them.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// The scopes in `names`. Unknown names are ignored, because a JWT may be for other services too.
    pub(crate) fn known_among<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(Scope::named).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scope_includes_another() {
        for scope in Scope::ALL {
            let only = Scopes::known_among([scope.as_str()]);
            for other in Scope::ALL {
                assert_eq!(only.contains(other), scope == other, "{scope} {other}");
            }
        }
        assert_eq!(
            Scopes::known_among(["openid", "READ", ""]),
            Scopes::default()
        );
    }
}
