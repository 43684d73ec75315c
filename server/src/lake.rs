//! Delta tables as files: create, open, write Parquet, commit, read the file list, time travel.
//!
//! Owns every call into `deltalake`'s log and every fsync of table files. It knows nothing of the
//! log's LSNs, of SQL statements or of who asks.

mod bloom;
mod checkpoint;
mod compute;
pub mod crash;
mod create;
mod encoding;
#[cfg(test)]
pub(crate) mod faulty;
mod files;
mod history;
mod open;
mod read;
mod restore;
mod store;
pub mod stores;
mod upload;
mod vacuum;
mod write;

#[cfg(test)]
mod tests;

pub use bloom::keep_bloom_filters;
pub use checkpoint::{CHECKPOINT_INTERVAL, checkpoint, clean_log, last_checkpoint};
pub use compute::Compute;
pub use create::{create, create_with, delete, storable};
pub use history::{CommitRecord, history};
pub use open::{At, exists, open};
pub use read::read_columns;
pub use restore::{Difference, difference};
pub(crate) use store::{make_dirs_durable, sync_dir};
pub use vacuum::{Garbage, Horizon, discard, garbage, sweep};
pub use write::{
    Commit, Operation, TARGET_FILE_BYTES, admit, commit, write_files, write_files_as, write_rows,
};

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{ScalarValue, Statistics};
use deltalake::DeltaTable;
use url::Url;

/// One version of a Delta table, with its active files laid out for planning. Cheap to clone,
/// never changes.
#[derive(Debug, Clone)]
pub struct LakeSnapshot {
    /// The table's root, with a trailing slash.
    pub root: Url,
    /// The Delta version.
    pub version: i64,
    /// Stored schema in canonical Arrow types, `_lsn` first where the table has it; partition
    /// columns included.
    pub schema: SchemaRef,
    /// Partition columns, in order.
    pub partition_by: Arc<[String]>,
    /// Active files.
    pub files: Arc<[LakeFile]>,
    /// The handle at this version, for operations that need delta-rs.
    pub table: DeltaTable,
}

/// One active data file.
#[derive(Debug, Clone)]
pub struct LakeFile {
    /// Path relative to the root, percent-decoded.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Values of the partition columns, in `partition_by` order, in their Arrow types.
    pub partition_values: Vec<ScalarValue>,
    /// Row count and min/max/null counts from the log, for the whole stored schema in its order
    /// (partition columns: exact value); unknown where the log has none.
    pub statistics: Arc<Statistics>,
}
