//! The files of `headcount setup --tokens-dir`: one for each token.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Failure;
use domain::store::IssuedToken;

/// Only the user that runs the service may read its token.
const MODE: u32 = 0o600;
/// The group may read the token that only reads: a dashboard runs as a different user.
const READER_MODE: u32 = 0o640;

/// A directory with a file for each token.
pub(super) struct TokenFiles<'a> {
    directory: &'a Path,
}

impl<'a> TokenFiles<'a> {
    pub(super) fn in_directory(directory: &'a Path) -> Self {
        Self { directory }
    }

    /// Writes the issued tokens, each file atomically.
    pub(super) fn keep(&self, issued: &[IssuedToken]) -> Result<(), Failure> {
        for token in issued {
            let path = self.path(token.role);
            let mode = match token.role {
                "reader" => READER_MODE,
                _ => MODE,
            };
            write(&path, &token.token, mode).map_err(|error| {
                Failure::failed(format!(
                    "can't write {}: {error}; delete the token {:?} in the store, then run this again",
                    path.display(),
                    token.purpose
                ))
            })?;
        }
        Ok(())
    }

    /// Fails if the file of a token is missing. The store issued that token earlier and does not return it again.
    pub(super) fn check(&self, roles: &[&str]) -> Result<(), Failure> {
        for role in roles {
            let path = self.path(role);
            if !path.exists() {
                return Err(Failure::failed(format!(
                    "{} is missing, and the store does not show a token again: delete its token \"headcount: {role} ...\", then run this again",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    fn path(&self, role: &str) -> PathBuf {
        self.directory.join(format!("{role}.token"))
    }
}

fn write(path: &Path, secret: &str, mode: u32) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&aside)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_become_files_that_others_can_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("tokens");
        let files = TokenFiles::in_directory(&directory);
        assert!(files.check(&["service"]).is_err());
        let issued = ["service", "reader"].map(|role| IssuedToken {
            role,
            purpose: format!("headcount: {role} of bucket b"),
            token: format!("t-{role}"),
        });
        files.keep(&issued).unwrap();
        files.check(&["service", "reader"]).unwrap();
        for (role, expected) in [("service", 0o600), ("reader", 0o640)] {
            let path = directory.join(format!("{role}.token"));
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("t-{role}"));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected, "{role}: {mode:o}");
        }
        fs::remove_file(directory.join("reader.token")).unwrap();
        let Err(Failure::Failed(said)) = files.check(&["service", "reader"]) else {
            panic!("a lost token was not missed");
        };
        assert!(said.contains("reader.token is missing"), "{said}");
    }
}
