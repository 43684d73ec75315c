//! `weir migrate`: does what a start does before it serves, then ends.

use crate::config::Config;
use crate::engine::Engine;
use crate::error::Result;

/// Opens the data directory, which brings the catalog up to date and recovers the log, and closes it.
pub(super) async fn run(config: Config) -> Result<()> {
    let engine = Engine::open(config).await?;
    engine.close().await
}
