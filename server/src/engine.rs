//! Planning and running queries over one cut: the per-statement context, name resolution per role,
//! scans, object stores, limits.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use catalog::{Snapshot, Store};

use crate::config::{Config, Secret};
use crate::error::{Error, Result};

/// The open database: what all sessions share.
#[derive(Debug)]
pub struct Engine {
    /// Settings it was opened with.
    pub config: Config,
    /// The durable catalog.
    pub store: Arc<dyn Store>,
    catalog: ArcSwap<Snapshot>,
    generated_password: Mutex<Option<Secret>>,
}

impl Engine {
    /// Opens the catalog (migrating it), the log (recovering it) and the query runtime. Takes the
    /// data directory's lock; a second process is refused.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        let _ = config;
        std::future::ready(Err(Error::Internal("skeleton".to_owned()))).await
    }

    /// The newest catalog state; a statement takes it once.
    pub fn catalog(&self) -> Arc<Snapshot> {
        self.catalog.load_full()
    }

    /// The superuser's password if this start made it up; given once, to be shown once.
    pub fn take_generated_password(&self) -> Option<Secret> {
        self.generated_password
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Flushes, stops background work and closes the catalog.
    pub async fn close(&self) -> Result<()> {
        self.store.close().await;
        Ok(())
    }
}
