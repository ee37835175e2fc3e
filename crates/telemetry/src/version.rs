//! Which build this is.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from: `HEADCOUNT_COMMIT` in the environment of the build, else the commit of the git checkout
/// (`build.rs`), else `unknown`.
pub const COMMIT: &str = match (
    option_env!("HEADCOUNT_COMMIT"),
    option_env!("COMMIT_FROM_GIT"),
) {
    (Some(commit), _) if !commit.is_empty() => commit,
    (_, Some(commit)) => commit,
    _ => "unknown",
};

/// Both, for people.
pub fn text() -> String {
    format!("{VERSION} (commit {COMMIT})")
}
