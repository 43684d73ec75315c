//! Making and deleting Delta tables.

use arrow::datatypes::{DataType, FieldRef, Schema, TimeUnit};
use deltalake::DeltaTable;
use deltalake::kernel::StructField;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::CommitProperties;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use url::Url;

use super::checkpoint::CHECKPOINT_INTERVAL;
use super::open::{handle, table_snapshot};
use super::{LakeSnapshot, bloom, store};
use crate::error::{Error, Result, SqlState};

/// Makes an empty table. `schema` is the stored schema (with `_lsn` where the table has one).
///
/// # Errors
/// `0A000` for a column type Delta cannot store, `42P07` when there is a table already.
pub async fn create(root: &Url, schema: &Schema, partition_by: &[String]) -> Result<LakeSnapshot> {
    create_with(root, schema, partition_by, &[]).await
}

/// Refuses columns that no table can have.
///
/// # Errors
/// 0A000 naming the column.
pub fn storable(schema: &Schema) -> Result<()> {
    let mut fields = schema.fields().iter();
    fields.try_for_each(|field| check_type(field.name(), field.data_type()))
}

/// [`create`] of a table whose data files keep Bloom filters of these columns.
///
/// # Errors
/// The same.
pub async fn create_with(
    root: &Url,
    schema: &Schema,
    partition_by: &[String],
    bloom_filters: &[String],
) -> Result<LakeSnapshot> {
    storable(schema)?;
    let columns = schema
        .fields()
        .iter()
        .map(column)
        .collect::<Result<Vec<_>>>()?;
    let handle = handle(root)?;
    if handle.log_store().is_delta_table_location().await? {
        return Err(Error::refused(
            SqlState::DUPLICATE_TABLE,
            format!("there is a table at \"{root}\" already"),
        ));
    }
    let interval = CHECKPOINT_INTERVAL.to_string();
    let table = handle
        .create()
        .with_columns(columns)
        .with_partition_columns(partition_by)
        // ours are no names that Delta reserves
        .with_raise_if_key_not_exists(false)
        .with_configuration(bloom::property(bloom_filters))
        .with_configuration([
            // Only this spelling is understood; with it, appends and DML of other writers coexist.
            ("delta.isolationLevel", Some("writeSerializable")),
            // Cleaning lists the whole log after each commit: a job's work, not a commit's.
            ("delta.enableExpiredLogCleanup", Some("false")),
            ("delta.checkpointInterval", Some(interval.as_str())),
        ])
        .with_commit_properties(CommitProperties::default().with_cleanup_expired_logs(Some(false)))
        .await?;
    table_snapshot(table, None)
}

/// Deletes a table with all its files. Deleting one that is not there is no error.
pub async fn delete(root: &Url) -> Result<()> {
    if let Ok(dir) = root.to_file_path() {
        let gone = tokio::task::spawn_blocking(move || {
            match std::fs::remove_dir_all(&dir) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            }
            dir.parent().map_or(Ok(()), store::sync_dir)
        });
        return match gone.await {
            Ok(result) => result.map_err(Error::io("delete a table's files")),
            Err(e) => Err(Error::Internal(format!("deleting files failed: {e}"))),
        };
    }
    let table: DeltaTable = handle(root)?;
    let objects = table.object_store();
    let mut found = objects.list(None);
    while let Some(meta) = found.try_next().await.map_err(storage)? {
        objects.delete(&meta.location).await.map_err(storage)?;
    }
    Ok(())
}

fn storage(e: object_store::Error) -> Error {
    Error::Delta(e.into())
}

pub(super) fn column(field: &FieldRef) -> Result<StructField> {
    field
        .as_ref()
        .try_into_kernel()
        .map_err(|e| Error::Internal(format!("column \"{}\": {e}", field.name())))
}

/// Delta has these types; what our SQL has beyond them is refused here.
pub(super) fn check_type(column: &str, ty: &DataType) -> Result<()> {
    match ty {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Decimal128(_, _)
        | DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(()),
        DataType::List(of) => check_type(column, of.data_type()),
        DataType::Struct(fields) => fields
            .iter()
            .try_for_each(|field| check_type(column, field.data_type())),
        other => Err(Error::unsupported(
            format!(
                "column \"{column}\" of type {} cannot be stored",
                crate::types::sql_type_of(other)
            ),
            "Delta tables have no such type: store it as text or bigint",
        )),
    }
}
