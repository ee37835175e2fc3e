//! Which build this is.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, where the build was told by the variable `HEADCOUNT_COMMIT`; else `unknown`. Not
/// asked of git: images and packages are built from source without a repository.
pub const COMMIT: &str = match option_env!("HEADCOUNT_COMMIT") {
    Some(commit) if !commit.is_empty() => commit,
    _ => "unknown",
};

/// Both, for people.
pub(crate) fn text() -> String {
    format!("{VERSION} (commit {COMMIT})")
}
