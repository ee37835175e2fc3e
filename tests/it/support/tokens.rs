//! Tokens, and a service that requires one.

use domain::Timestamp;
use http::auth::{self, Digest, Scope, Token};
use tempfile::TempDir;

use super::app::{App, NOON};

/// A token with this secret, for all segments and without limits.
pub fn token(name: &str, text: &str, scopes: &[Scope]) -> Token {
    Token {
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        segments: None,
        sha256: Digest::of(text.as_bytes()),
        created: Timestamp::from_second(NOON - 60).unwrap(),
        expires: None,
        requests_per_second: None,
        pairs_per_second: None,
    }
}

/// A service that requires a token and accepts this one, with the directory of its tokens file.
pub async fn app_with_token(token: Token) -> (App, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.toml");
    auth::edit(&path, |tokens| tokens.add(token)).unwrap();
    let app = App::start_with(&[("tokens_file", path.to_str().unwrap())]).await;
    (app, folder)
}
