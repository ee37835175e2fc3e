//! The set of keys that JWTs are verified with: one from the settings, or those of a file or directory that may change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use super::jwt_key::JwtKey;
use super::watch::{Debounce, Watched};
use super::{AuthError, Digest, file, jwks};
use domain::Secret;
use telemetry::Metrics;

/// A token without `kid` is tried with each key, so their number is limited. Issuers have two or three.
const MAX_KEYS: usize = 32;
/// The name of the file or directory in metrics and `/readyz`: the setting that names it.
const NAME: &str = "jwt_keys";

/// A key and its `kid`, if it has one.
pub(super) type NamedKey = (Option<String>, JwtKey);

/// Keys with their `kid`s.
#[derive(Debug)]
pub(super) struct Keyring {
    keys: Vec<NamedKey>,
}

impl Keyring {
    /// One key, for tokens of any `kid`.
    pub(super) fn of(key: JwtKey) -> Self {
        Self {
            keys: vec![(None, key)],
        }
    }

    /// The keys that may have signed a token with this `kid`, or without one.
    pub(super) fn candidates(&self, kid: Option<&str>) -> impl Iterator<Item = &JwtKey> {
        let fits = move |id: &Option<String>| match (id.as_deref(), kid) {
            (Some(id), Some(kid)) => id == kid,
            _ => true,
        };
        let keys = self.keys.iter();
        keys.filter(move |(id, _)| fits(id)).map(|(_, key)| key)
    }
}

/// The keys of a JWKS file, or of a directory of PEM files whose names, without `.pem`, are the `kid`s. Always the last
/// valid contents.
#[derive(Debug)]
pub(super) struct WatchedKeys {
    path: PathBuf,
    metrics: Arc<Metrics>,
    keyring: RwLock<Arc<Keyring>>,
    debounce: Mutex<Debounce>,
    broken: AtomicBool,
}

/// The files at the path. A JWKS file has no name; a PEM file has its name without `.pem`.
struct Contents {
    files: Vec<(Option<String>, Vec<u8>)>,
}

impl WatchedKeys {
    /// Reads the keys. Fails if they can't be used.
    pub(super) fn open(path: PathBuf, metrics: Arc<Metrics>) -> Result<Self, AuthError> {
        let problem = |problem: String| AuthError {
            setting: NAME,
            path: path.clone(),
            problem,
        };
        let contents = Contents::read(&path).map_err(|error| problem(unreadable(&error)))?;
        let keyring = contents.keyring().map_err(problem)?;
        metrics.auth.file_broken.with([NAME]).set(0);
        Ok(Self {
            path,
            metrics,
            keyring: RwLock::new(Arc::new(keyring)),
            debounce: Mutex::new(Debounce::new(Ok(contents.digest()))),
            broken: AtomicBool::new(false),
        })
    }

    /// The current keys.
    pub(super) fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read())
    }

    /// Whether the current contents of the path can't be used.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn note_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
        let gauge = self.metrics.auth.file_broken.with([NAME]);
        gauge.set(u64::from(broken));
    }
}

impl Watched for WatchedKeys {
    fn poll(&self) {
        let contents = Contents::read(&self.path).map_err(|error| unreadable(&error));
        let observation = contents
            .as_ref()
            .map(Contents::digest)
            .map_err(Clone::clone);
        if !self.debounce.lock().observe(observation) {
            return;
        }
        let path = self.path.display();
        match contents.and_then(|contents| contents.keyring()) {
            Ok(keyring) => {
                let keys = keyring.keys.len();
                *self.keyring.write() = Arc::new(keyring);
                self.note_broken(false);
                tracing::info!(keys, "loaded the keys of JWTs from {path}");
                tracing::info!(
                    target: "audit",
                    action = "jwt_keys",
                    keys,
                    from = %path,
                    outcome = "loaded",
                    "the keys of JWTs changed"
                );
            }
            Err(problem) => {
                self.note_broken(true);
                tracing::error!("{path} {problem}; previously loaded keys of JWTs stay valid");
                tracing::info!(
                    target: "audit",
                    action = "jwt_keys",
                    from = %path,
                    outcome = "refused",
                    problem,
                    "the keys of JWTs can't be used"
                );
            }
        }
    }
}

impl Contents {
    fn read(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            let bytes = file::read(path)?;
            return Ok(Self {
                files: vec![(None, bytes)],
            });
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            // Kubernetes mounts have directories and links of their own, which are skipped.
            let is_key = path.extension().is_some_and(|ending| ending == "pem");
            let name = path.file_stem().and_then(|name| name.to_str());
            if let (true, Some(name)) = (is_key, name) {
                files.push((Some(name.to_owned()), file::read(&path)?));
            }
        }
        files.sort_unstable();
        Ok(Self { files })
    }

    fn digest(&self) -> Digest {
        let mut all = Vec::new();
        for (name, bytes) in &self.files {
            let name = name.as_deref().unwrap_or_default();
            for part in [name.as_bytes(), bytes] {
                all.extend_from_slice(&(part.len() as u64).to_be_bytes());
                all.extend_from_slice(part);
            }
        }
        Digest::of(&all)
    }

    /// The error completes "the file, which ...".
    fn keyring(&self) -> Result<Keyring, String> {
        let mut keys = Vec::new();
        for (name, bytes) in &self.files {
            let Some(name) = name else {
                let (usable, others) = jwks::parse(bytes)?;
                if others > 0 {
                    tracing::info!(others, "the JWK set has keys that are not used here");
                }
                keys.extend(usable);
                continue;
            };
            let text = std::str::from_utf8(bytes).ok();
            let pem = text.filter(|text| text.contains("-----BEGIN "));
            let pem = pem.ok_or_else(|| format!("has {name}.pem, which is not PEM"))?;
            let key = JwtKey::parse(&Secret::new(pem))
                .map_err(|right| format!("has {name}.pem: give {right}"))?;
            keys.push((Some(name.clone()), key));
        }
        if keys.is_empty() {
            return Err("has no file whose name ends in .pem".into());
        }
        if keys.len() > MAX_KEYS {
            return Err(format!(
                "has {} keys, but at most {MAX_KEYS} are supported",
                keys.len()
            ));
        }
        Ok(Keyring { keys })
    }
}

fn unreadable(error: &io::Error) -> String {
    format!("can't be read: {error}")
}
