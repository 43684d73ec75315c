//! Writing data files and commits. Both are durable on return when the table is local.

use std::collections::HashMap;
use std::num::NonZeroU64;

use arrow::record_batch::RecordBatch;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, Remove, Transaction};
use deltalake::operations::get_num_idx_cols_and_stats_columns;
use deltalake::protocol::{DeltaOperation, SaveMode};
use futures::{Stream, StreamExt, stream};
use serde_json::Value;

use super::{LakeSnapshot, encoding};
use crate::error::Result;

/// A file is closed when it reaches this size.
pub const TARGET_FILE_BYTES: u64 = 128 * 1024 * 1024;
const TARGET_FILE_SIZE: Option<NonZeroU64> = NonZeroU64::new(TARGET_FILE_BYTES);

/// What a commit is called in the table's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Operation {
    /// Rows are added or changed.
    #[default]
    Write,
    /// The same rows in other files.
    Optimize {
        /// Which files were looked at; all of them when empty.
        predicate: Option<String>,
    },
    /// Rows leave by their age.
    Expire {
        /// Which.
        predicate: String,
    },
    /// The files of an older version.
    Restore {
        /// That version.
        version: i64,
    },
}

/// One commit to be made.
#[derive(Debug, Default)]
pub struct Commit {
    /// Files that become part of the table.
    pub adds: Vec<Add>,
    /// Files that leave it.
    pub removes: Vec<Remove>,
    /// Makes the commit happen at most once: the application and its version.
    pub txn: Option<(String, i64)>,
    /// Further application versions, set with the commit and free to go up or down.
    pub marks: Vec<(String, i64)>,
    /// Free entries of the commit's info.
    pub metadata: Vec<(String, Value)>,
    /// What the history calls it.
    pub operation: Operation,
}

/// Writes batches in the stored schema as Parquet files of the table, not yet part of it.
/// Encodes on the thread that polls it: call it inside [`super::Compute::run`].
pub async fn write_files<S>(snapshot: &LakeSnapshot, mut batches: S) -> Result<Vec<Add>>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    let state = snapshot.table.snapshot()?;
    let (indexed, stats) =
        get_num_idx_cols_and_stats_columns(Some(state.table_config()), HashMap::new());
    // the first rows say how the columns are best encoded
    let Some(first) = batches.next().await.transpose()? else {
        return Ok(Vec::new());
    };
    let config = WriterConfig::new(
        std::sync::Arc::clone(&snapshot.schema),
        snapshot.partition_by.to_vec(),
        Some(encoding::properties(&first)),
        TARGET_FILE_SIZE,
        None,
        indexed,
        stats,
    );
    let mut writer = DeltaWriter::new(snapshot.table.object_store(), config);
    let mut batches = stream::iter([Ok(first)]).chain(batches);
    while let Some(batch) = batches.next().await {
        let written = match batch {
            Ok(batch) if batch.num_rows() == 0 => Ok(()),
            Ok(batch) => writer.write(&batch).await.map_err(Into::into),
            Err(e) => Err(e),
        };
        if let Err(e) = written {
            if let Err(abort) = writer.abort().await {
                tracing::warn!(error = %abort, "cannot give up unfinished data files");
            }
            return Err(e);
        }
    }
    Ok(writer.close().await?)
}

/// Commits on top of `snapshot`, which must be the newest the caller knows, and gives the state
/// after it. With `txn`, an answer that got lost is looked up again: the commit is made once.
pub async fn commit(snapshot: &LakeSnapshot, commit: Commit) -> Result<LakeSnapshot> {
    let blind = commit.removes.is_empty() && commit.operation == Operation::Write;
    // Another writer's commit in between is no reason to lose or double rows: delta-rs does not look
    // for conflicts of files that are only rearranged.
    let alone = commit.operation != Operation::Write;
    let operation = operation(snapshot, commit.operation, blind);
    let mut metadata = commit.metadata;
    if blind {
        metadata.push(("isBlindAppend".to_owned(), Value::Bool(true)));
    }
    let mut properties = CommitProperties::default()
        .with_metadata(metadata)
        .with_cleanup_expired_logs(Some(false));
    if alone {
        properties = properties.with_max_retries(0);
    }
    for (app_id, version) in commit.txn.iter().chain(&commit.marks) {
        properties = properties.with_application_transaction(Transaction::new(app_id, *version));
    }
    let removes = commit.removes.into_iter().map(Action::Remove);
    let actions = removes.chain(commit.adds.into_iter().map(Action::Add));
    let prepared = CommitBuilder::from(properties)
        .with_actions(actions.collect())
        .build(
            Some(snapshot.table.snapshot()?),
            snapshot.table.log_store(),
            operation,
        )
        .into_prepared_commit_future()
        .await?;
    // Awaiting what this gives would run delta-rs's hooks, which read the state once more.
    match prepared.await {
        Ok(_) => {
            crate::metrics::delta_commit();
            snapshot.refreshed().await
        }
        Err(e) => match made_it(snapshot, commit.txn.as_ref()).await {
            Some(after) => {
                tracing::warn!(error = %e, "the commit had succeeded although it reported an error");
                Ok(after)
            }
            None => Err(e.into()),
        },
    }
}

fn operation(snapshot: &LakeSnapshot, operation: Operation, blind: bool) -> DeltaOperation {
    match operation {
        Operation::Write => DeltaOperation::Write {
            mode: match blind {
                true => SaveMode::Append,
                false => SaveMode::Overwrite,
            },
            partition_by: (!snapshot.partition_by.is_empty())
                .then(|| snapshot.partition_by.to_vec()),
            predicate: None,
        },
        Operation::Optimize { predicate } => DeltaOperation::Optimize {
            predicate,
            target_size: i64::try_from(TARGET_FILE_BYTES).unwrap_or(i64::MAX),
        },
        Operation::Expire { predicate } => DeltaOperation::Delete {
            predicate: Some(predicate),
        },
        Operation::Restore { version } => DeltaOperation::Restore {
            version: u64::try_from(version).ok(),
            datetime: None,
        },
    }
}

/// The table after all, when the log shows that the commit with this `txn` is in it.
async fn made_it(snapshot: &LakeSnapshot, txn: Option<&(String, i64)>) -> Option<LakeSnapshot> {
    let (app_id, version) = txn?;
    let after = snapshot.refreshed().await.ok()?;
    let found = after.txn_version(app_id).await.ok()??;
    (found >= *version).then_some(after)
}
