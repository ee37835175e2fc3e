//! The version and commit of this build.

/// The version of the package, from `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of the build: `HEADCOUNT_COMMIT` in the environment of the build, else the commit of the git checkout
/// (`build.rs`), else `unknown`.
pub const COMMIT: &str = match (
    option_env!("HEADCOUNT_COMMIT"),
    option_env!("COMMIT_FROM_GIT"),
) {
    (Some(commit), _) if !commit.is_empty() => commit,
    (_, Some(commit)) => commit,
    _ => "unknown",
};

/// Version and commit as text, for people.
pub fn text() -> String {
    format!("{VERSION} (commit {COMMIT})")
}
