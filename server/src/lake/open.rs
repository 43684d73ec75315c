//! Opening tables: newest, by version, by time; and following them from commit to commit.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake::logstore::extract_version_from_filename;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use futures::TryStreamExt;
use object_store::path::Path;
use url::Url;

use super::history::commit_time_ms;
use super::{LakeSnapshot, files, stores};
use crate::error::{Error, Result, SqlState};

/// Which state of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest.
    Latest,
    /// A Delta version.
    Version(i64),
    /// The newest version committed at or before a time, in microseconds since the Unix epoch.
    Timestamp(i64),
}

/// Opens the table at `root`.
///
/// # Errors
/// `22023` naming the available range when there is no such version or time; `42P01` when there
/// is no table; `0A000` for a table weir cannot read rightly.
pub async fn open(root: &Url, at: At) -> Result<LakeSnapshot> {
    let mut table = handle(root)?;
    match at {
        At::Latest => load(&mut table, None).await?,
        At::Version(version) => {
            let range = versions(&table).await?;
            let wanted = range.check(version)?;
            load(&mut table, Some(wanted)).await?;
        }
        At::Timestamp(micros) => {
            let range = versions(&table).await?;
            let wanted = version_at(&table, &range, micros).await?;
            load(&mut table, Some(wanted)).await?;
        }
    }
    table_snapshot(table, None)
}

/// True when there is a table at `root`.
///
/// # Errors
/// As the store's listing.
pub async fn exists(root: &Url) -> Result<bool> {
    Ok(handle(root)?.verify_deltatable_existence().await?)
}

impl LakeSnapshot {
    /// The newest state; keeps what is known of files that stay.
    pub async fn refreshed(&self) -> Result<Self> {
        let mut table = self.table.clone();
        load(&mut table, None).await?;
        if i64::try_from(table.version().unwrap_or(0)).unwrap_or(i64::MAX) == self.version {
            return Ok(self.clone());
        }
        self.with_table(table)
    }

    /// This table as another handle of it sees it.
    pub fn with_table(&self, table: DeltaTable) -> Result<Self> {
        table_snapshot(table, Some(self))
    }

    /// Highest version an application has committed under `app_id` (Delta's `txn` action).
    pub async fn txn_version(&self, app_id: &str) -> Result<Option<i64>> {
        let state = self.table.snapshot()?;
        Ok(state
            .transaction_version(self.table.log_store().as_ref(), app_id)
            .await?)
    }

    /// Rows in storage, when every file's count is known.
    pub fn rows(&self) -> Option<usize> {
        self.files
            .iter()
            .map(|file| file.statistics.num_rows.get_value().copied())
            .sum()
    }
}

/// A handle without state, over the store its URL names.
pub(super) fn handle(root: &Url) -> Result<DeltaTable> {
    let root = directory(root);
    let store = stores::object_store(&root)?;
    let builder = DeltaTableBuilder::from_url(root.clone())?.with_storage_backend(store, root);
    Ok(builder.build()?)
}

/// The snapshot of a loaded handle; files known from `before` are taken over.
pub(super) fn table_snapshot(
    table: DeltaTable,
    before: Option<&LakeSnapshot>,
) -> Result<LakeSnapshot> {
    let state = table.snapshot()?;
    let stored: Schema = state
        .schema()
        .as_ref()
        .try_into_arrow()
        .map_err(|e| Error::Query(e.into()))?;
    let schema = canonical(&stored);
    let partition_by: Arc<[String]> = state.metadata().partition_columns().to_vec().into();
    let reuse = before.filter(|b| b.schema == schema && b.partition_by == partition_by);
    let files = files::active_files(state, &schema, &partition_by, reuse)?;
    let version = i64::try_from(state.version())
        .map_err(|_| Error::Internal("table version out of range".to_owned()))?;
    // The same schema keeps its pointer, so comparing schemas stays cheap.
    let schema = reuse.map_or(schema, |b| Arc::clone(&b.schema));
    Ok(LakeSnapshot {
        root: directory(table.table_url()),
        version,
        schema,
        partition_by,
        files,
        table,
    })
}

/// Readable versions of a table.
struct Versions {
    name: String,
    earliest: u64,
    latest: u64,
}

impl Versions {
    fn check(&self, version: i64) -> Result<u64> {
        match u64::try_from(version) {
            Ok(v) if v >= self.earliest && v <= self.latest => Ok(v),
            _ => Err(Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("table \"{}\" has no version {version}", self.name),
            )
            .with_detail(format!(
                "versions {} to {} are available",
                self.earliest, self.latest
            ))),
        }
    }
}

async fn versions(table: &DeltaTable) -> Result<Versions> {
    let name = name_of(table.table_url());
    let store = table.object_store();
    let mut commits: Vec<u64> = Vec::new();
    let mut checkpoints: Vec<u64> = Vec::new();
    let mut found = store.list(Some(&Path::from("_delta_log")));
    while let Some(meta) = found.try_next().await.map_err(|e| Error::Delta(e.into()))? {
        let path = meta.location.as_ref();
        let file = path.rsplit('/').next().unwrap_or(path);
        // the names of checkpoints pass for those of commits too
        if file.contains(".checkpoint") {
            checkpoints.extend(file.get(..20).and_then(|n| n.parse::<u64>().ok()));
        } else if let Some(version) = extract_version_from_filename(file) {
            commits.push(version);
        }
    }
    let latest = commits.iter().max().copied();
    // cleaning a log may have been interrupted: only what follows without a gap can be replayed
    commits.sort_unstable();
    let first = commits
        .iter()
        .rev()
        .zip(commits.iter().rev().skip(1))
        .find(|(above, below)| **above > **below + 1)
        .map(|(above, _)| *above)
        .or_else(|| commits.first().copied());
    let earliest = match first {
        Some(0) => Some(0),
        first => {
            let usable = |at: &&u64| first.is_some_and(|first| **at + 1 >= first);
            checkpoints.iter().filter(usable).min().copied()
        }
    };
    match (earliest, latest) {
        (Some(earliest), Some(latest)) => Ok(Versions {
            name,
            earliest,
            latest,
        }),
        _ => Err(no_table(table.table_url())),
    }
}

/// The last version whose commit says it was made at or before `micros`.
async fn version_at(table: &DeltaTable, range: &Versions, micros: i64) -> Result<u64> {
    let wanted_ms = micros.div_euclid(1000);
    let first_ms = commit_time_ms(table, range.earliest).await?;
    if first_ms > wanted_ms {
        return Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("table \"{}\" has no version that old", range.name),
        )
        .with_detail(format!(
            "its earliest available version {} was committed at {}",
            range.earliest,
            timestamp_text(first_ms)
        )));
    }
    let (mut low, mut high) = (range.earliest, range.latest);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if commit_time_ms(table, middle).await? <= wanted_ms {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

async fn load(table: &mut DeltaTable, version: Option<u64>) -> Result<()> {
    let loaded = match version {
        Some(version) => table.load_version(version).await,
        None => table.update_incremental(None).await,
    };
    match loaded {
        Ok(()) => Ok(()),
        Err(DeltaTableError::NotATable(_) | DeltaTableError::NotInitialized) => {
            Err(no_table(table.table_url()))
        }
        Err(e) if !table.log_store().is_delta_table_location().await? => {
            tracing::debug!(error = %e, "no delta log");
            Err(no_table(table.table_url()))
        }
        Err(e) => Err(e.into()),
    }
}

fn no_table(root: &Url) -> Error {
    Error::refused(
        SqlState::UNDEFINED_TABLE,
        format!("there is no Delta table at \"{root}\""),
    )
}

fn name_of(root: &Url) -> String {
    root.path_segments()
        .and_then(|segments| segments.rev().find(|s| !s.is_empty()))
        .unwrap_or_default()
        .to_owned()
}

fn timestamp_text(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms).map_or_else(
        || ms.to_string(),
        |t| t.format("%Y-%m-%d %H:%M:%S%.3f+00").to_string(),
    )
}

/// The URL with a trailing slash, so joining a path to it goes below it.
fn directory(root: &Url) -> Url {
    let mut root = root.clone();
    if !root.path().ends_with('/') {
        let path = format!("{}/", root.path());
        root.set_path(&path);
    }
    root
}

/// The forms `types` defines: one per SQL type, no views, no dictionaries.
fn canonical(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(canonical_field).collect();
    Arc::new(Schema::new(fields))
}

fn canonical_field(field: &FieldRef) -> FieldRef {
    let ty = canonical_type(field.data_type());
    Arc::new(
        Field::new(field.name(), ty, field.is_nullable()).with_metadata(field.metadata().clone()),
    )
}

fn canonical_type(ty: &DataType) -> DataType {
    match ty {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => canonical_type(value),
        DataType::Timestamp(_, Some(_)) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::List(of) | DataType::LargeList(of) => DataType::List(canonical_field(of)),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(canonical_field).collect::<Fields>())
        }
        other => other.clone(),
    }
}
