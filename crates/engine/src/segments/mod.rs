//! The settings of segments: a window, a description and a group. The store keeps them, and every instance follows them.

mod settings;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub use self::settings::{InvalidSettings, SegmentSettings};
use domain::store::{PairStore, StoreError};
use domain::{OwnWindows, Segment, TimeFrame, Window};

/// The prefix of the name of a property. The name of the segment follows.
const PREFIX: &str = "segment/";
/// The longest time after which another instance has new settings.
pub const FOLLOW_EVERY: Duration = Duration::from_secs(10);
/// How long a start waits for the settings.
const FIRST_READ: Duration = Duration::from_secs(1);
/// The timeout of a read of all settings.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of all segments, as this instance last read them. While the store is unavailable they stay as they are.
#[derive(Debug)]
pub struct SegmentCatalog {
    store: Arc<dyn PairStore>,
    frame: TimeFrame,
    maximum: usize,
    known: RwLock<HashMap<Segment, SegmentSettings>>,
    windows: watch::Sender<OwnWindows>,
    /// Locked during a change and during a read, so that a read that began before a change does not overwrite it.
    using_store: tokio::sync::Mutex<()>,
}

/// Why settings were not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SettingsError {
    /// Too many segments have settings.
    #[error("{0} segments have settings already: the limit is max_segments")]
    TooMany(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SegmentCatalog {
    /// A catalog of at most `maximum` segments, which is empty until it was read.
    pub fn new(store: Arc<dyn PairStore>, frame: TimeFrame, maximum: usize) -> Self {
        Self {
            store,
            frame,
            maximum,
            known: RwLock::default(),
            windows: watch::Sender::default(),
            using_store: tokio::sync::Mutex::default(),
        }
    }

    /// Reads the settings for the first time. If that takes long, the configured window applies until
    /// [`keep_following`](Self::keep_following) has read them.
    pub(crate) async fn begin(&self) {
        match timeout(FIRST_READ, self.read()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the settings of segments can't be read yet; the configured window applies");
            }
            Err(_) => tracing::warn!(
                "the settings of segments were not read in time; the configured window applies"
            ),
        }
    }

    /// Reads the settings periodically, until it is dropped.
    pub(crate) async fn keep_following(&self) {
        let mut is_failing = false;
        loop {
            // Jitter keeps the instances from reading at the same time.
            sleep(FOLLOW_EVERY.mul_f64(0.9 + fastrand::f64() / 10.0)).await;
            match self.read().await {
                Ok(()) => is_failing = false,
                Err(error) if is_failing => {
                    tracing::debug!(%error, "the settings of segments still can't be read");
                }
                Err(error) => {
                    tracing::warn!(%error, "the settings of segments can't be read; the last known ones apply");
                    is_failing = true;
                }
            }
        }
    }

    /// The settings of a segment.
    pub fn settings(&self, segment: &Segment) -> SegmentSettings {
        self.known.read().get(segment).cloned().unwrap_or_default()
    }

    /// The default window of counts of a segment.
    pub fn window_of(&self, segment: &Segment) -> Window {
        let own = self.windows.borrow().get(segment).copied();
        own.unwrap_or_else(|| self.frame.full_window())
    }

    /// The segments with a window other than the configured one.
    pub fn own_windows(&self) -> OwnWindows {
        OwnWindows::clone(&self.windows.borrow())
    }

    /// Follows [`own_windows`](Self::own_windows).
    pub(crate) fn subscribe(&self) -> watch::Receiver<OwnWindows> {
        self.windows.subscribe()
    }

    /// Stores the settings of a segment in place of earlier ones. They apply in this instance at once, and in others within
    /// [`FOLLOW_EVERY`].
    pub async fn put(
        &self,
        segment: &Segment,
        settings: SegmentSettings,
    ) -> Result<(), SettingsError> {
        let _using = self.using_store.lock().await;
        let value = settings.to_value();
        let is_new = value.is_some() && !self.known.read().contains_key(segment);
        if is_new && self.known.read().len() >= self.maximum {
            return Err(SettingsError::TooMany(self.maximum));
        }
        let name = format!("{PREFIX}{segment}");
        self.store.set_property(&name, value.as_deref()).await?;
        {
            let mut known = self.known.write();
            match value {
                Some(_) => drop(known.insert(segment.clone(), settings)),
                None => drop(known.remove(segment)),
            }
        }
        self.publish_windows();
        Ok(())
    }

    async fn read(&self) -> Result<(), StoreError> {
        let _using = self.using_store.lock().await;
        let read = timeout(READ_TIMEOUT, self.store.properties(PREFIX)).await;
        let found = match read {
            Ok(Err(StoreError::Unsupported(_))) => return Ok(()),
            Ok(found) => found?,
            Err(_) => {
                let reason = format!("no properties within {READ_TIMEOUT:?}");
                return Err(StoreError::Timeout(reason));
            }
        };
        let settings = found.iter().filter_map(|(name, value)| {
            let segment = Segment::new(name.strip_prefix(PREFIX)?).ok()?;
            let settings = SegmentSettings::of_value(&self.frame, &segment, value);
            Some((segment, settings))
        });
        let settings: HashMap<Segment, SegmentSettings> = settings.collect();
        if *self.known.read() != settings {
            *self.known.write() = settings;
            self.publish_windows();
        }
        Ok(())
    }

    fn publish_windows(&self) {
        let full = self.frame.full_window();
        let known = self.known.read();
        let own = known.iter().filter_map(|(segment, settings)| {
            let window = settings.window().filter(|window| *window != full)?;
            Some((segment.clone(), window))
        });
        let own: HashMap<Segment, Window> = own.collect();
        drop(known);
        self.windows.send_if_modified(|held| {
            let is_new = **held != own;
            if is_new {
                *held = Arc::new(own);
            }
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use domain::store::conformance::frame;
    use domain::store::model::Model;

    fn segment(name: &str) -> Segment {
        Segment::new(name).unwrap()
    }

    fn over(minutes: u64) -> SegmentSettings {
        let window = Some(Duration::from_secs(60 * minutes));
        SegmentSettings::new(&frame(60), window, None, None).unwrap()
    }

    fn catalog(store: &Arc<Model>) -> SegmentCatalog {
        let store = Arc::clone(store) as Arc<dyn PairStore>;
        SegmentCatalog::new(store, frame(60), 2)
    }

    fn minutes(catalog: &SegmentCatalog, name: &str) -> u64 {
        catalog.window_of(&segment(name)).seconds() / 60
    }

    #[tokio::test(start_paused = true)]
    async fn instances_follow_settings_and_keep_them_while_the_store_is_unavailable() {
        let store = Arc::new(Model::default());
        let (one, other) = (catalog(&store), Arc::new(catalog(&store)));
        other.begin().await;
        let follower = Arc::clone(&other);
        let following = tokio::spawn(async move { follower.keep_following().await });
        one.put(&segment("a"), over(7)).await.unwrap();
        assert_eq!((minutes(&one, "a"), minutes(&one, "b")), (7, 60));
        sleep(FOLLOW_EVERY).await;
        assert_eq!(minutes(&other, "a"), 7);

        store.is_gone.store(true, Ordering::Relaxed);
        let failed = one.put(&segment("a"), over(8)).await;
        assert!(matches!(failed, Err(SettingsError::Store(_))));
        assert_eq!(minutes(&one, "a"), 7, "nothing changed");
        sleep(FOLLOW_EVERY * 3).await;
        assert_eq!(minutes(&other, "a"), 7);

        store.is_gone.store(false, Ordering::Relaxed);
        let none = SegmentSettings::default();
        one.put(&segment("a"), none).await.unwrap();
        sleep(FOLLOW_EVERY).await;
        assert_eq!((minutes(&one, "a"), minutes(&other, "a")), (60, 60));
        following.abort();
    }

    #[tokio::test]
    async fn the_number_of_settings_is_limited() {
        let store = Arc::new(Model::default());
        let catalog = catalog(&store);
        for name in ["a", "b", "a"] {
            catalog.put(&segment(name), over(7)).await.unwrap();
        }
        let refused = catalog.put(&segment("c"), over(7)).await;
        assert!(matches!(refused, Err(SettingsError::TooMany(2))));
        let none = SegmentSettings::default();
        catalog.put(&segment("c"), none.clone()).await.unwrap();
        catalog.put(&segment("b"), none).await.unwrap();
        catalog.put(&segment("c"), over(60)).await.unwrap();
        let own: Vec<_> = catalog.own_windows().keys().cloned().collect();
        assert_eq!(own, [segment("a")], "the configured window is left out");
    }
}
