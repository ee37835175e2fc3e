//! The tokens file of a running service, which is polled for changes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use super::table::Table;
use super::{AuthError, BadTokens, Digest, Rates, Token, Tokens, file};
use telemetry::Metrics;

/// The poll interval. A change is applied after two polls in a row that see it, so within two intervals.
const PERIOD: Duration = Duration::from_millis(500);
/// The name of the file in metrics and `/readyz`: the setting that names it.
const NAME: &str = "tokens_file";

/// The tokens of a file. Always its last valid contents.
#[derive(Debug)]
pub(super) struct WatchedTokens {
    path: PathBuf,
    defaults: Rates,
    metrics: Arc<Metrics>,
    table: RwLock<Arc<Table>>,
    /// The tokens in the table, to compare with the next version.
    tokens: Mutex<Tokens>,
    debounce: Mutex<Debounce>,
    broken: AtomicBool,
}

/// A file or directory that is polled for changes.
pub(super) trait Watched: Send + Sync + 'static {
    /// Reads the contents and applies a change.
    fn poll(&self);
}

/// Polls `watched` until `stop` is cancelled.
pub(super) async fn poll_until(watched: Arc<impl Watched>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let watched = Arc::clone(&watched);
        // On a blocking thread, because a file system that hangs must not block requests.
        let polled = tokio::task::spawn_blocking(move || watched.poll()).await;
        if let Err(error) = polled {
            tracing::error!(%error, "polling a file of tokens or keys failed");
        }
    }
}

/// The result of a poll: the digest of the contents, or why they could not be read.
pub(super) type Observation = Result<Digest, String>;

/// Distinguishes a change from contents that are being written: it accepts a change when two polls in a row observe the
/// same new contents.
///
/// The files are small, so each poll reads them. Modification time and length are not enough, because they stay the same
/// when a file is written twice within a tick of the file system's clock. Symbolic links are followed, which is how
/// Kubernetes swaps mounted secrets. Two polls are needed, because a file that is being written in place is read
/// truncated, and a truncation between two tokens would revoke tokens.
#[derive(Debug)]
pub(super) struct Debounce {
    /// The last accepted observation.
    settled: Observation,
    /// The observation of the last poll.
    last: Observation,
}

impl Debounce {
    pub(super) fn new(first: Observation) -> Self {
        Self {
            settled: first.clone(),
            last: first,
        }
    }

    /// Whether `observation` is a change to apply.
    pub(super) fn observe(&mut self, observation: Observation) -> bool {
        let seen_twice = self.last == observation;
        self.last = observation.clone();
        if !seen_twice || self.settled == observation {
            return false;
        }
        self.settled = observation;
        true
    }
}

impl WatchedTokens {
    /// Reads the file. Fails if it can't be used.
    pub(super) fn open(
        path: PathBuf,
        defaults: Rates,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AuthError> {
        let problem = |problem: String| AuthError {
            setting: NAME,
            path: path.clone(),
            problem,
        };
        let bytes =
            file::read(&path).map_err(|error| problem(format!("can't be read: {error}")))?;
        let tokens = Tokens::parse(&bytes).map_err(|error| problem(error.to_string()))?;
        let table = Table::new(&tokens, defaults, &Table::default());
        metrics.auth.tokens.set(table.len() as u64);
        if table.len() == 0 {
            tracing::warn!("{} holds no token yet", path.display());
        }
        metrics.auth.file_broken.with([NAME]).set(0);
        Ok(Self {
            path,
            defaults,
            metrics,
            table: RwLock::new(Arc::new(table)),
            tokens: Mutex::new(tokens),
            debounce: Mutex::new(Debounce::new(Ok(Digest::of(&bytes)))),
            broken: AtomicBool::new(false),
        })
    }

    /// The current tokens.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read())
    }

    /// Whether the current contents of the file can't be used.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn note_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
        let gauge = self.metrics.auth.file_broken.with([NAME]);
        gauge.set(u64::from(broken));
    }

    fn take_up(&self, tokens: Tokens) {
        let former = self.table();
        let table = Table::new(&tokens, self.defaults, &former);
        let count = table.len();
        self.metrics.auth.tokens.set(count as u64);
        *self.table.write() = Arc::new(table);
        tracing::info!(tokens = count, "loaded {}", self.path.display());
        let former = std::mem::replace(&mut *self.tokens.lock(), tokens);
        let changes = Changes::between(&former, &self.tokens.lock());
        tracing::info!(
            target: "audit",
            action = "tokens",
            added = ?changes.added,
            removed = ?changes.removed,
            changed = ?changes.changed,
            from = %self.path.display(),
            outcome = "loaded",
            "the tokens file changed"
        );
    }
}

impl Watched for WatchedTokens {
    fn poll(&self) {
        let read = file::read(&self.path);
        let observation = match &read {
            Ok(bytes) => Ok(Digest::of(bytes)),
            Err(error) => Err(format!("can't be read: {error}")),
        };
        if !self.debounce.lock().observe(observation) {
            return;
        }
        let tokens = match read {
            Ok(bytes) => Tokens::parse(&bytes).map_err(|BadTokens(problem)| problem),
            Err(error) => Err(format!("can't be read: {error}")),
        };
        match tokens {
            Ok(tokens) => {
                self.take_up(tokens);
                self.note_broken(false);
            }
            Err(problem) => {
                self.metrics.auth.tokens_file_errors.inc();
                self.note_broken(true);
                let path = self.path.display();
                tracing::error!(
                    "the tokens file {path} {problem}; previously loaded tokens stay valid, and revocations have no effect"
                );
                tracing::info!(
                    target: "audit",
                    action = "tokens",
                    from = %path,
                    outcome = "refused",
                    problem,
                    "the tokens file can't be used"
                );
            }
        }
    }
}

/// The names of tokens that differ between two versions of a file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

impl Changes {
    fn between(former: &Tokens, tokens: &Tokens) -> Self {
        let mut before: HashMap<&str, &Token> = former
            .iter()
            .map(|token| (token.name.as_str(), token))
            .collect();
        let mut changes = Self::default();
        for token in tokens.iter() {
            match before.remove(token.name.as_str()) {
                None => changes.added.push(token.name.clone()),
                Some(same) if same == token => {}
                Some(_) => changes.changed.push(token.name.clone()),
            }
        }
        changes.removed = before.into_keys().map(str::to_owned).collect();
        changes.removed.sort_unstable();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Scope, edit};
    use domain::Timestamp;
    use std::num::NonZeroU32;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn token(name: &str) -> Token {
        Token {
            name: name.to_owned(),
            scopes: vec![Scope::Read],
            segments: None,
            sha256: Digest::of(name.as_bytes()),
            created: Timestamp::UNIX_EPOCH,
            expires: None,
            requests_per_second: NonZeroU32::new(1),
            pairs_per_second: None,
        }
    }

    fn add(path: &Path, name: &str) {
        edit(path, |tokens| tokens.add(token(name))).unwrap();
    }

    fn open(path: &Path) -> WatchedTokens {
        WatchedTokens::open(path.to_owned(), Rates::default(), Arc::default()).unwrap()
    }

    fn knows(watched: &WatchedTokens, name: &str) -> bool {
        watched.table().find(&Digest::of(name.as_bytes())).is_some()
    }

    fn poll_twice(watched: &WatchedTokens) {
        watched.poll();
        watched.poll();
    }

    fn errors(watched: &WatchedTokens) -> String {
        let text = watched.metrics.render().unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("headcount_tokens_file_errors_total "));
        line.unwrap().to_owned()
    }

    #[test]
    fn changes_are_taken_up_and_what_is_broken_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        assert!(WatchedTokens::open(path.clone(), Rates::default(), Arc::default()).is_err());
        add(&path, "a");
        let watched = open(&path);
        add(&path, "b");
        watched.poll();
        assert!(!knows(&watched, "b"), "one poll may have read half of it");
        watched.poll();
        assert!(knows(&watched, "a") && knows(&watched, "b"));

        let whole = std::fs::read(&path).unwrap();
        for broken in [
            &b""[..],
            b"version = 1\n[[token]]\nna",
            &whole[..whole.len() - 9],
        ] {
            std::fs::write(&path, broken).unwrap();
            poll_twice(&watched);
            assert!(knows(&watched, "a") && knows(&watched, "b"));
            assert!(watched.is_broken());
        }
        std::fs::remove_file(&path).unwrap();
        poll_twice(&watched);
        poll_twice(&watched);
        assert!(knows(&watched, "a"));
        assert_eq!(errors(&watched), "4", "each once");

        std::fs::write(&path, &whole).unwrap();
        edit(&path, |tokens| Ok(tokens.remove("a"))).unwrap();
        poll_twice(&watched);
        assert!(!knows(&watched, "a") && knows(&watched, "b"));
        assert_eq!(errors(&watched), "4");
        assert!(!watched.is_broken());
    }

    #[test]
    fn what_changed_is_named() {
        let tokens = |names: &[(&str, Scope)]| {
            let mut tokens = Tokens::default();
            for (name, scope) in names {
                let scopes = vec![*scope];
                let token = Token {
                    scopes,
                    ..token(name)
                };
                tokens.add(token).unwrap();
            }
            tokens
        };
        let before = tokens(&[("a", Scope::Read), ("b", Scope::Read), ("c", Scope::Read)]);
        let after = tokens(&[("d", Scope::Read), ("c", Scope::Erase), ("b", Scope::Read)]);
        let changes = Changes::between(&before, &after);
        assert_eq!(changes.added, ["d"]);
        assert_eq!(changes.removed, ["a"]);
        assert_eq!(changes.changed, ["c"]);
        assert_eq!(Changes::between(&before, &before), Changes::default());
    }

    #[test]
    fn a_file_cut_where_a_token_ends_revokes_nothing_while_it_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        add(&path, "a");
        let half = std::fs::read(&path).unwrap();
        add(&path, "b");
        let whole = std::fs::read(&path).unwrap();
        let watched = open(&path);
        std::fs::write(&path, half).unwrap();
        watched.poll();
        std::fs::write(&path, whole).unwrap();
        watched.poll();
        watched.poll();
        assert!(knows(&watched, "b"));
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        // As in Kubernetes: the file is a link into `..data`, which is a link to a directory that is replaced.
        let folder = tempfile::tempdir().unwrap();
        let (one, two, path) = ("..1", "..2", folder.path().join("tokens"));
        for (version, name) in [(one, "a"), (two, "b")] {
            std::fs::create_dir(folder.path().join(version)).unwrap();
            add(&folder.path().join(version).join("tokens"), name);
        }
        symlink(one, folder.path().join("..data")).unwrap();
        symlink("..data/tokens", &path).unwrap();
        let watched = open(&path);
        assert!(knows(&watched, "a"));
        symlink(two, folder.path().join("..tmp")).unwrap();
        std::fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).unwrap();
        std::fs::remove_dir_all(folder.path().join(one)).unwrap();
        poll_twice(&watched);
        assert!(!knows(&watched, "a") && knows(&watched, "b"));
    }

    #[test]
    fn what_was_spent_stays_spent_when_another_token_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        add(&path, "a");
        let watched = open(&path);
        let limiter = |watched: &WatchedTokens| {
            let table = watched.table();
            let known = table.find(&Digest::of(b"a")).unwrap();
            known.caller.limiter.clone().unwrap()
        };
        let before = limiter(&watched);
        add(&path, "b");
        poll_twice(&watched);
        assert!(knows(&watched, "b") && Arc::ptr_eq(&before, &limiter(&watched)));
    }
}
