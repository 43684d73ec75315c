//! Writing data files and commits. Both are durable on return when the table is local.

use std::collections::HashMap;
use std::num::NonZeroU64;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{
    Action, Add, MetadataExt, Remove, StructField, StructType, TableFeatures, Transaction,
};
use deltalake::operations::get_num_idx_cols_and_stats_columns;
use deltalake::protocol::{DeltaOperation, SaveMode};
use futures::{Stream, StreamExt, stream};
use serde_json::Value;

use super::create::{check_type, column};
use super::{LakeSnapshot, bloom, encoding};
use crate::error::{Error, Result};

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
    /// The table's stored columns from this commit on. Files that stay must be readable as such:
    /// a new column is missing in them, another type is not.
    pub schema: Option<SchemaRef>,
    /// What the history calls it, if the columns stay.
    pub operation: Operation,
}

/// Writes batches in the stored schema as Parquet files of the table, not yet part of it.
/// Encodes on the thread that polls it: call it inside [`super::Compute::run`].
pub async fn write_files<S>(snapshot: &LakeSnapshot, batches: S) -> Result<Vec<Add>>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    write_files_as(snapshot, &snapshot.schema, batches).await
}

/// [`write_files`] in the columns that the table is about to have.
pub async fn write_files_as<S>(
    snapshot: &LakeSnapshot,
    schema: &SchemaRef,
    batches: S,
) -> Result<Vec<Add>>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    write(snapshot, schema, batches, None).await
}

/// [`write_files`] of rows that are all at hand.
pub async fn write_rows(snapshot: &LakeSnapshot, rows: Vec<RecordBatch>) -> Result<Vec<Add>> {
    let count = rows.iter().map(RecordBatch::num_rows).sum();
    let batches = stream::iter(rows.into_iter().map(Ok));
    write(snapshot, &snapshot.schema, batches, Some(count)).await
}

async fn write<S>(
    snapshot: &LakeSnapshot,
    schema: &SchemaRef,
    batches: S,
    rows: Option<usize>,
) -> Result<Vec<Add>>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    let state = snapshot.table.snapshot()?;
    let (indexed, stats) =
        get_num_idx_cols_and_stats_columns(Some(state.table_config()), HashMap::new());
    // it is asked again after its end when all of it was looked at
    let mut batches = batches.fuse();
    let Some(first) = encoding::sample(&mut batches).await? else {
        return Ok(Vec::new());
    };
    let bloom_filters = bloom::columns(snapshot)?;
    let config = WriterConfig::new(
        SchemaRef::clone(schema),
        snapshot.partition_by.to_vec(),
        Some(encoding::properties(&first, &bloom_filters, rows)),
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
    let mut actions = Vec::new();
    let operation = match &commit.schema {
        Some(schema) => altered(snapshot, schema, &mut actions)?,
        None => operation(snapshot, commit.operation, blind),
    };
    let mut metadata = commit.metadata;
    if blind && commit.schema.is_none() {
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
    actions.extend(removes.chain(commit.adds.into_iter().map(Action::Add)));
    let prepared = CommitBuilder::from(properties)
        .with_actions(actions)
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

/// The table, able to hold columns that it had none of yet: Delta's timestamps without a time zone must
/// be allowed by a commit before the one that brings them.
pub async fn admit(snapshot: LakeSnapshot, schema: &SchemaRef) -> Result<LakeSnapshot> {
    fn zoneless(ty: &DataType) -> bool {
        match ty {
            DataType::Timestamp(_, None) => true,
            DataType::List(of) => zoneless(of.data_type()),
            DataType::Struct(fields) => fields.iter().any(|f| zoneless(f.data_type())),
            _ => false,
        }
    }
    let has = |schema: &SchemaRef| schema.fields().iter().any(|f| zoneless(f.data_type()));
    if has(&snapshot.schema) || !has(schema) {
        return Ok(snapshot);
    }
    let table = snapshot
        .table
        .clone()
        .add_feature()
        .with_feature(TableFeatures::TimestampWithoutTimezone)
        .with_allow_protocol_versions_increase(true)
        .with_commit_properties(CommitProperties::default().with_cleanup_expired_logs(Some(false)))
        .await?;
    snapshot.with_table(table)
}

/// The actions that give a table other columns, and what the log calls them.
fn altered(
    snapshot: &LakeSnapshot,
    schema: &SchemaRef,
    actions: &mut Vec<Action>,
) -> Result<DeltaOperation> {
    let state = snapshot.table.snapshot()?;
    let mut fields: Vec<StructField> = Vec::with_capacity(schema.fields().len());
    let mut changed = Vec::new();
    let mut added = Vec::new();
    for field in schema.fields() {
        check_type(field.name(), field.data_type())?;
        let stored = column(field)?;
        match snapshot.schema.field_with_name(field.name()) {
            Err(_) => added.push(stored.clone()),
            Ok(before) if before != field.as_ref() => changed.push(stored.clone()),
            Ok(_) => {}
        }
        fields.push(stored);
    }
    let columns = StructType::try_new(fields)
        .map_err(|e| Error::Internal(format!("columns of \"{}\": {e}", snapshot.root)))?;
    let metadata = state
        .metadata()
        .clone()
        .with_schema(&columns)
        .map_err(|e| Error::Internal(format!("columns of \"{}\": {e}", snapshot.root)))?;
    actions.push(Action::Metadata(metadata));
    Ok(match added.is_empty() {
        false => DeltaOperation::AddColumn { fields: added },
        true => DeltaOperation::UpdateFieldMetadata { fields: changed },
    })
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
