//! `deploy/make-secrets` creates the secrets that the deployment files refer to, once.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::tools::{root, stdout_of, yaml};

fn make(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(root().join("deploy/make-secrets"));
    stdout_of(
        command
            .args(arguments)
            .env("SECRETS", directory)
            .env("HEADCOUNT", env!("CARGO_BIN_EXE_headcount")),
    )
}

/// The names of the created files.
pub fn files() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &[]);
    let entries = std::fs::read_dir(folder.path()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The Secret for Kubernetes.
pub fn kubernetes_secret() -> Option<Value> {
    let folder = tempfile::tempdir().unwrap();
    yaml(&make(folder.path(), &["kubernetes"]))
        .into_iter()
        .next()
}

#[test]
fn secrets_are_created_once_with_restricted_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("secrets");
    make(&directory, &[]);
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let first = [read("influx_admin_token"), read("token_admin")];
    make(&directory, &[]);
    assert_eq!([read("influx_admin_token"), read("token_admin")], first);
    assert_eq!(first[0].len(), 64, "32 random bytes");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700, "other users have no access");
    // The users of the containers must be able to read the files.
    assert_eq!(mode(&directory.join("redis_url")), 0o644);
    assert_eq!(mode(&directory.join("tokens/tokens.toml")), 0o644);
    assert!(
        !read("tokens/tokens.toml").contains(&first[1]),
        "the tokens file contains only digests"
    );
    let secret = &yaml(&make(&directory, &["kubernetes"]))[0];
    assert_eq!(secret["stringData"]["token_admin"], *first[1].trim_end());
    assert_eq!(
        secret["stringData"]["tokens"].as_str().unwrap().trim_end(),
        read("tokens/tokens.toml").trim_end()
    );
}
