//! Opens the configured store: the one place that constructs adapters.

use std::sync::Arc;

use super::{PairStore, StoreError};
use crate::config::Settings;
use crate::domain::{Slot, Timestamp};
use crate::telemetry::Metrics;

/// An open store.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn PairStore>,
    /// The newest slot that it holds, where it can tell.
    pub newest: Option<Slot>,
}

/// Opens the configured store.
pub async fn open(
    _settings: &Settings,
    _now: Timestamp,
    _metrics: &Arc<Metrics>,
) -> Result<Opened, StoreError> {
    Err(StoreError::Unsupported(
        "the embedded store is not wired yet",
    ))
}
