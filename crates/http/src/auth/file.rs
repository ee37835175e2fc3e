//! The tokens file: names, scopes and digests of tokens in TOML.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::limits::MAX_RATE;
use super::{Digest, Rates, Scope};
use domain::Timestamp;
use domain::{PATTERN, Reach};

/// The largest tokens file. A token takes about 200 bytes, so a larger file is configured by mistake.
const MAX_BYTES: u64 = 4 << 20;
/// The version of the file format.
const VERSION: u32 = 1;
const MAX_NAME_BYTES: usize = 64;
const HEADER: &str = "\
# The tokens of headcount, as digests. `headcount token` rewrites this file, without its comments.
# A running service applies a change within two seconds.
";

/// A token in the tokens file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The unique name, which logs show.
    pub name: String,
    /// What the token allows.
    pub scopes: Vec<Scope>,
    /// Patterns of the segments that the token is bound to. `None` means all segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<String>>,
    /// The digest of the token.
    pub sha256: Digest,
    /// When it was created.
    #[serde(with = "rfc3339")]
    pub created: Timestamp,
    /// When it expires; `None` means never.
    #[serde(
        default,
        with = "rfc3339_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires: Option<Timestamp>,
    /// Its rate limit of requests, which overrides the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<NonZeroU32>,
    /// Its rate limit of pairs, which overrides the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs_per_second: Option<NonZeroU32>,
}

impl Token {
    /// Its own rate limits, without configured defaults.
    pub fn rates(&self) -> Rates {
        Rates {
            requests: self.requests_per_second,
            pairs: self.pairs_per_second,
        }
    }

    /// The segments that it allows; `None` if a pattern is invalid.
    pub fn reach(&self) -> Option<Reach> {
        match &self.segments {
            Some(patterns) => Reach::of(patterns),
            None => Some(Reach::every()),
        }
    }

    /// Whether it has expired at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The tokens of a file. Always valid: names and digests are unique.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens(Vec<Token>);

/// Why the contents are invalid. The message completes "the file, which ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTokens(pub(super) String);

impl BadTokens {
    /// No token has this name.
    pub fn no_such(name: &str) -> Self {
        Self(format!("has no token named {name:?}"))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensDocument {
    /// Required: otherwise a file that was truncated to zero bytes would be valid and revoke all tokens.
    version: u32,
    #[serde(default, rename = "token", skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<Token>,
}

impl Tokens {
    /// Parses the contents of a file.
    pub fn parse(text: &[u8]) -> Result<Self, BadTokens> {
        let text = std::str::from_utf8(text).map_err(|_| BadTokens("is not UTF-8".into()))?;
        let document: TokensDocument = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().get(..start).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            BadTokens(format!(
                "is not a tokens file: line {line}: {}",
                error.message()
            ))
        })?;
        if document.version != VERSION {
            let version = document.version;
            return Err(BadTokens(format!(
                "has version {version}, but only version {VERSION} is supported"
            )));
        }
        let mut tokens = Self::default();
        for token in document.tokens {
            tokens.add(token)?;
        }
        Ok(tokens)
    }

    /// The contents of a file with these tokens.
    pub fn render(&self) -> Result<String, BadTokens> {
        let document = TokensDocument {
            version: VERSION,
            tokens: self.0.clone(),
        };
        let body = toml::to_string(&document)
            .map_err(|error| BadTokens(format!("can't be written: {error}")))?;
        Ok(format!("{HEADER}{body}"))
    }

    /// Adds `token`. Fails if it is invalid, or if its name or digest is taken.
    pub fn add(&mut self, token: Token) -> Result<(), BadTokens> {
        let name = &token.name;
        if !is_name(name) {
            return Err(BadTokens(format!(
                "has a token named {name:?}: a name is 1 to {MAX_NAME_BYTES} of the characters A-Z a-z 0-9 . _ @ -"
            )));
        }
        if token.scopes.is_empty() {
            return Err(BadTokens(format!("has no scope for the token {name}")));
        }
        if self.0.iter().any(|other| other.name == *name) {
            return Err(BadTokens(format!("already has a token named {name}")));
        }
        if self.0.iter().any(|other| other.sha256 == token.sha256) {
            return Err(BadTokens(format!(
                "has the token {name} with the digest of another token"
            )));
        }
        if token.segments.as_ref().is_some_and(Vec::is_empty) {
            return Err(BadTokens(format!(
                "binds {name} to no segment: omit `segments` to allow all"
            )));
        }
        if token.reach().is_none() {
            return Err(BadTokens(format!(
                "binds {name} to an invalid segment: each must be {PATTERN}"
            )));
        }
        let rates = token.rates();
        let highest = rates.requests.max(rates.pairs).map_or(0, NonZeroU32::get);
        if highest > MAX_RATE {
            return Err(BadTokens(format!("gives {name} a limit above {MAX_RATE}")));
        }
        self.0.push(token);
        Ok(())
    }

    /// Removes the token named `name`. Returns whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|token| token.name != name);
        self.0.len() < before
    }

    /// The tokens, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Token> {
        self.0.iter()
    }
}

/// Reads a tokens file or key file of at most [`MAX_BYTES`].
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it has more than {MAX_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain)
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use domain::Timestamp;

    pub(super) fn serialize<S: Serializer>(
        at: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            de::Error::custom("an instant must be written as \"2026-11-21T08:00:00Z\"")
        })
    }
}

mod rfc3339_or_none {
    use serde::{Deserializer, Serializer};

    use domain::Timestamp;

    pub(super) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::rfc3339::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        super::rfc3339::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> Token {
        Token {
            name: name.to_owned(),
            scopes: vec![Scope::Write, Scope::Read],
            segments: None,
            sha256: Digest::of(name.as_bytes()),
            created: Timestamp::from_second(1_795_262_400).unwrap(),
            expires: None,
            requests_per_second: None,
            pairs_per_second: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut tokens = Tokens::default();
        assert_eq!(
            Tokens::parse(tokens.render().unwrap().as_bytes()),
            Ok(tokens.clone())
        );
        tokens.add(token("uss")).unwrap();
        let limited = Token {
            expires: Some(Timestamp::from_second(1_800_000_000).unwrap()),
            requests_per_second: NonZeroU32::new(50),
            pairs_per_second: NonZeroU32::new(MAX_RATE),
            segments: Some(vec!["sports".into(), "a, b*".into()]),
            ..token("dash.board@x_1-2")
        };
        tokens.add(limited).unwrap();
        let text = tokens.render().unwrap();
        assert_eq!(Tokens::parse(text.as_bytes()), Ok(tokens));
        assert!(
            text.contains("[[token]]\nname = \"uss\"\nscopes = [\"write\", \"read\"]\n"),
            "{text}"
        );
        assert!(
            text.contains("expires = \"2027-01-15T08:00:00Z\"\n"),
            "{text}"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let digest = Digest::of(b"x");
        let entry = |name: &str, rest: &str| {
            format!(
                "[[token]]\nname = \"{name}\"\nsha256 = \"{digest}\"\ncreated = \"2026-11-21T08:00:00Z\"\n{rest}\n"
            )
        };
        let good = entry("a", "scopes = [\"read\"]");
        for (text, what) in [
            (String::new(), "version"),
            (good.clone(), "version"),
            ("version = 2".into(), "version 2"),
            ("version = 1\n[[token".into(), "line 2"),
            (
                format!("version = 1\n{}", entry("a b", "scopes = [\"read\"]")),
                "a b",
            ),
            (
                format!("version = 1\n{}", entry("", "scopes = [\"read\"]")),
                "named",
            ),
            (
                format!("version = 1\n{}", entry("a", "scopes = []")),
                "no scope",
            ),
            (
                format!("version = 1\n{}", entry("a", "scopes = [\"all\"]")),
                "line 6",
            ),
            (
                format!("version = 1\n{}", entry("a", "scope = [\"read\"]")),
                "scope",
            ),
            (format!("version = 1\n{good}{good}"), "already"),
            (
                format!("version = 1\n{good}{}", good.replace("\"a\"", "\"b\"")),
                "digest of another",
            ),
            (
                format!("version = 1\n{good}pairs_per_second = 0\n"),
                "line 7",
            ),
            (
                format!("version = 1\n{good}pairs_per_second = 10000001\n"),
                "above",
            ),
            (format!("version = 1\n{good}segments = []\n"), "no segment"),
            (
                format!("version = 1\n{good}segments = [\" x\"]\n"),
                "invalid segment",
            ),
            (
                format!("version = 1\n{good}expires = \"soon\"\n"),
                "instant",
            ),
        ] {
            let error = Tokens::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
        assert!(Tokens::parse(b"\xff").is_err());
        assert_eq!(
            Tokens::parse(format!("version = 1\n{good}").as_bytes())
                .unwrap()
                .0
                .len(),
            1
        );
    }
}
