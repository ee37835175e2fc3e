//! The replica in this process, and its publisher if there are other instances.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use domain::published::PublishedCounts;
use domain::store::StoreError;
use domain::{FingerprintKey, OwnWindows, TimeFrame, Window};
use live::publisher::{Publisher, PublisherParts, Role};
use live::replica::{Replica, ReplicaOptions, Sources};
use supervisor::Supervisor;
use tokio::sync::watch;

use super::Duty;

/// A replica, which opens as soon as the store returns the key of the fingerprints.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) dir: PathBuf,
    pub(super) frame: TimeFrame,
    pub(super) publishing: Option<Publishing>,
    pub(super) opened: OnceLock<Opened>,
}

/// Where and what the replica publishes.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) published: Arc<dyn PublishedCounts>,
    pub(super) windows: Vec<Window>,
    pub(super) own_windows: watch::Receiver<OwnWindows>,
    pub(super) address: String,
}

#[derive(Debug)]
pub(super) struct Opened {
    pub(super) replica: Arc<Replica>,
    publisher: Option<Publisher>,
}

impl Host {
    /// Opens the replica, and starts its tasks.
    pub(super) async fn open(
        &self,
        key: FingerprintKey,
        sources: &Sources,
        supervisor: &Supervisor,
    ) -> Result<(), StoreError> {
        let options = ReplicaOptions::new(&self.dir, self.frame, key);
        let opening = tokio::task::spawn_blocking(move || Replica::open(options)).await;
        let replica = opening.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        let replica = Arc::new(replica);
        replica.start(sources, supervisor);
        let publisher = self.publishing.as_ref().map(|publishing| {
            let parts = PublisherParts {
                replica: Arc::clone(&replica),
                published: Arc::clone(&publishing.published),
                windows: publishing.windows.clone(),
                own_windows: publishing.own_windows.clone(),
                address: publishing.address.clone(),
            };
            Publisher::start(parts, supervisor)
        });
        // The caller opens it once.
        let _ = self.opened.set(Opened { replica, publisher });
        Ok(())
    }

    pub(super) fn replica(&self) -> Option<&Arc<Replica>> {
        Some(&self.opened.get()?.replica)
    }

    pub(super) fn role(&self) -> Option<Role> {
        Some(self.opened.get()?.publisher.as_ref()?.role())
    }

    pub(super) fn duty(&self) -> Duty {
        let can_tell = self
            .replica()
            .is_some_and(|replica| replica.is_complete() && replica.as_of().is_some());
        match self.role() {
            Some(Role::Standby) => Duty::Nothing,
            _ if can_tell => Duty::RecordTrend,
            _ => Duty::Recount,
        }
    }

    pub(super) fn describe(&self) -> Result<String, String> {
        let Some(replica) = self.replica() else {
            return Err("the replica is not open yet; counts come from the store".to_owned());
        };
        let status = replica.status();
        if !status.is_complete {
            let (pairs, unread) = (status.hydrated_pairs, status.unread_segments);
            return Err(format!(
                "the replica has read {pairs} pairs of the store, and has {unread} segments left; their counts come from the store"
            ));
        }
        if replica.as_of().is_none() {
            return Err(
                "the replica is behind the change feed; counts come from the store".to_owned(),
            );
        }
        let pairs = status.pairs;
        match self.role() {
            None => Ok(format!("{pairs} pairs")),
            Some(Role::Publisher) => {
                Ok(format!("{pairs} pairs; this process publishes the counts"))
            }
            Some(Role::Standby) => Ok(format!(
                "{pairs} pairs; another process publishes the counts"
            )),
            Some(Role::Failing) => Err("counts can't be published".to_owned()),
        }
    }
}
