//! A statement's effect, one file per statement.

pub mod copy_format;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;

use crate::error::Result;

/// What running a statement gives.
pub enum Outcome {
    /// Rows. `tag` is the command word of the completion tag (`SELECT`, `SHOW`, `EXPLAIN`, `INSERT`…):
    /// doors print `SELECT n` with the count they sent.
    Rows {
        /// Command word.
        tag: &'static str,
        /// Columns, also when there are no rows.
        schema: SchemaRef,
        /// The rows; dropping it cancels the query.
        stream: SendableRecordBatchStream,
    },
    /// No rows; the whole completion tag: `CREATE TABLE`, `INSERT 0 5`.
    Command {
        /// The completion tag.
        tag: String,
        /// Rows changed, when the statement changes rows.
        rows: Option<u64>,
    },
    /// The statement waits for `COPY` data: the door feeds it, then finishes or drops it.
    CopyIn(Box<dyn CopySink>),
    /// `COPY … TO STDOUT`: ready-made bytes in the asked format, row by row or in blocks.
    CopyOut {
        /// Binary format (affects the CopyOutResponse's format codes).
        binary: bool,
        /// Number of columns.
        columns: usize,
        /// The data.
        stream: futures::stream::BoxStream<'static, Result<Bytes>>,
        /// Counts rows as they are encoded.
        rows: std::sync::Arc<std::sync::atomic::AtomicU64>,
    },
    /// The text held no statement.
    Empty,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rows { .. } => "Rows",
            Self::Command { .. } => "Command",
            Self::CopyIn(_) => "CopyIn",
            Self::CopyOut { .. } => "CopyOut",
            Self::Empty => "Empty",
        })
    }
}

/// Takes `COPY … FROM STDIN` data. Nothing is stored before [`CopySink::finish`] returns.
#[async_trait::async_trait]
pub trait CopySink: Send {
    /// Binary format (affects the CopyInResponse's format codes).
    fn binary(&self) -> bool;
    /// Number of columns.
    fn columns(&self) -> usize;
    /// The next bytes as they came; boundaries mean nothing. Waits when the server is behind.
    async fn feed(&mut self, data: Bytes) -> Result<()>;
    /// The client sent CopyDone: stores the rows, durable and visible on return, and says how many.
    async fn finish(self: Box<Self>) -> Result<u64>;
}
