//! Reading a table's log from its newest checkpoint again.
//!
//! A handle that follows its table from commit to commit goes on knowing the log from where it was opened:
//! asking it for application versions reads all commits since, and fails once they are cleaned away.

use std::sync::Arc;

use super::committer::Owned;
use super::core::Core;
use super::head::{Lsn, ViewHead};
use crate::error::{Error, Result};
use crate::lake::{self, At, LakeSnapshot};

/// Publishes the same state of a table or view, known from the newest checkpoint on. False when a commit
/// of unknown outcome has to be looked up first.
pub(super) async fn anchor(core: Arc<Core>, table: Arc<Owned>) -> Result<bool> {
    let root = published(&core, &table)?.root.clone();
    // what takes long is done outside the lock
    let fresh = lake::open(&root, At::Latest).await?;
    let _ledger = table.locked().await?;
    let known = published(&core, &table)?;
    let fresh = fresh.refreshed().await?;
    if fresh.version != known.version {
        return Ok(false);
    }
    let fresh = known.with_table(fresh.table)?;
    let head = core.head();
    match head.views.get(&table.oid) {
        None => core.stored(table.oid, fresh, Lsn::default(), None)?,
        Some(view) => core.put_view(
            table.oid,
            ViewHead {
                state: Arc::new(fresh),
                ..ViewHead::clone(view)
            },
        ),
    }
    Ok(true)
}

/// What is stored of a table or view, as the head has it.
pub(super) fn published(core: &Core, table: &Owned) -> Result<Arc<LakeSnapshot>> {
    let head = core.head();
    match (head.tables.get(&table.oid), head.views.get(&table.oid)) {
        (Some(t), _) => Ok(Arc::clone(&t.lake)),
        (None, Some(v)) => Ok(Arc::clone(&v.state)),
        (None, None) => Err(Error::undefined_table(&table.name)),
    }
}
