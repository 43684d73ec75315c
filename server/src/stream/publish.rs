//! Finished results as Delta tables of their own, for readers outside: each is replaced whole, in one commit.
//!
//! Such a table is no part of the head: nothing in the database reads it, so its files are needed only as
//! long as an outside reader may be at them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use catalog::Oid;
use futures::{Stream as Batches, StreamExt};
use url::Url;

use super::core::Core;
use super::in_use::now_ms;
use super::tail;
use crate::error::{Error, Result};
use crate::lake::crash::crash_point;
use crate::lake::{self, CHECKPOINT_INTERVAL, Commit, Horizon, LakeSnapshot};

/// Folder of the table inside its view's; readers of the view's own table do not look into it.
const FOLDER: &str = "_published/";
/// How long older results can be read.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// After so many results, files of older ones are looked for.
const SWEEP: i64 = 10;

/// Where the published result of a view lies whose state is at `root`.
pub fn published_at(root: &Url) -> Result<Url> {
    let mut root = root.clone();
    if !root.path().ends_with('/') {
        root.set_path(&format!("{}/", root.path()));
    }
    root.join(FOLDER)
        .map_err(|e| Error::Internal(format!("no place in \"{root}\": {e}")))
}

/// Puts rows in the place of a view's published result; the number they were published under. One
/// publication of a view runs at a time.
pub(super) async fn publish<S>(
    core: &Core,
    view: Oid,
    root: Url,
    schema: SchemaRef,
    rows: S,
) -> Result<i64>
where
    S: Batches<Item = Result<RecordBatch>> + Send + 'static,
{
    let work = async move {
        let lake = match lake::exists(&root).await? {
            true => lake::open(&root, lake::At::Latest).await?,
            false => lake::create(&root, &schema, &[]).await?,
        };
        let stored = Arc::clone(&lake.schema);
        let rows = rows.map(move |batch| tail::conform(&batch?, &stored));
        let adds = lake::write_files(&lake, std::pin::pin!(rows)).await?;
        let files = lake.table.snapshot()?.log_data();
        let removes = files.iter().map(|file| file.remove_action(true)).collect();
        crash_point("publish-before-commit");
        let app = format!("weir/{view}/published");
        let number = lake.version + 1;
        let commit = Commit {
            adds,
            removes,
            txn: Some((app, number)),
            ..Commit::default()
        };
        let after = lake::commit(&lake, commit).await?;
        crash_point("publish-after-commit");
        tidy(&after).await?;
        Ok(number)
    };
    core.compute.run(work).await
}

/// Keeps the log short, and room for what may still be read.
async fn tidy(lake: &LakeSnapshot) -> Result<()> {
    if lake.version % CHECKPOINT_INTERVAL == 0 {
        lake::checkpoint(lake).await?;
        lake::clean_log(lake, lake.version, KEPT).await?;
    }
    if lake.version % SWEEP == 0 {
        let before = now_ms() - i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        let horizon = Horizon {
            removed_before: before,
            unknown_before: before,
        };
        for file in lake::garbage(lake, &HashSet::new(), horizon).await? {
            lake::sweep(lake, &file).await?;
        }
    }
    Ok(())
}
