//! Passes the commit of a git checkout to the compiler, for `src/version.rs`.
//!
//! It does nothing if `HEADCOUNT_COMMIT` is set, or if the workspace is in no git checkout, or if git is not installed.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=HEADCOUNT_COMMIT");
    let given = std::env::var_os("HEADCOUNT_COMMIT").is_some_and(|commit| !commit.is_empty());
    // A repository above the workspace is another program's. In a linked worktree, `.git` is a file.
    if given || !Path::new("../../.git").exists() {
        return;
    }
    let Some(commit) = git(&["rev-parse", "--verify", "HEAD"]) else {
        return;
    };
    // The name must not begin with `HEADCOUNT_`: `cargo run` also sets it for the program, which reads such names as settings.
    println!("cargo::rustc-env=COMMIT_FROM_GIT={commit}");
    watch("HEAD");
    // On a branch, HEAD contains the name of the branch, else the commit.
    if let Some(branch) = git(&["symbolic-ref", "--quiet", "HEAD"])
        && !watch(&branch)
    {
        // A packed branch has no file of its own; each commit adds a line to the log of HEAD.
        watch("logs/HEAD");
    }
}

/// Makes cargo run this script again when a file of the repository changes. A file that does not exist is not watched,
/// because cargo would run the script at every build.
fn watch(name: &str) -> bool {
    let path = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists());
    if let Some(path) = &path {
        println!("cargo::rerun-if-changed={path}");
    }
    path.is_some()
}

/// The output of git without the line end; `None` if git fails or is not installed.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| text.trim().to_owned())
}
