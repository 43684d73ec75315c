//! `weir.audit_log`: the trace of every statement, read page by page while the query runs, however
//! long it has grown. A superuser sees all of it, anyone else their own rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use catalog::{AuditRow, Store};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::Result as QueryResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;

use super::word;
use crate::error::{Error, Result};
use crate::system::frame::Frame;
use crate::system::{SystemContext, shapes};

/// Rows read at a time.
const PAGE: i64 = 2048;

pub(super) fn table(frame: &Frame, cx: &SystemContext) -> Result<Arc<dyn TableProvider>> {
    let schema = frame.schema();
    let log = AuditLog {
        store: Arc::clone(&cx.store),
        // the log names roles as they were when the statement ran
        role: (!cx.access().superuser()).then(|| cx.role.clone()),
        schema: Arc::clone(&schema),
    };
    Ok(Arc::new(StreamingTable::try_new(
        schema,
        vec![Arc::new(log)],
    )?))
}

#[derive(Debug)]
struct AuditLog {
    store: Arc<dyn Store>,
    role: Option<String>,
    schema: SchemaRef,
}

impl PartitionStream for AuditLog {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let store = Arc::clone(&self.store);
        let role = self.role.clone();
        let pages = stream::try_unfold(Some(0), move |after| {
            let store = Arc::clone(&store);
            let role = role.clone();
            async move {
                let Some(after) = after else {
                    return Ok(None);
                };
                let rows = store.audit(after, PAGE).await.map_err(Error::from)?;
                let next = rows.last().map(|r| r.seq);
                let shown = |row: &&AuditRow| role.as_ref().is_none_or(|r| *r == row.role);
                let batch = page(rows.iter().filter(shown))?;
                QueryResult::Ok(Some((batch, next)))
            }
        });
        let schema = Arc::clone(&self.schema);
        Box::pin(RecordBatchStreamAdapter::new(schema, pages))
    }
}

fn page<'a>(rows: impl Iterator<Item = &'a AuditRow>) -> Result<RecordBatch> {
    let shape = shapes::find("weir", "audit_log")
        .ok_or_else(|| Error::Internal("weir.audit_log has no shape".to_owned()))?;
    let mut frame = Frame::new(shape);
    for row in rows {
        frame.row([
            ("seq", row.seq.into()),
            ("ended_at", row.at_micros.into()),
            ("session", (&row.session).into()),
            ("door", (&row.door).into()),
            ("role", (&row.role).into()),
            ("command", (&row.command).into()),
            ("statement", (&row.statement).into()),
            ("objects", row.objects.clone().into()),
            ("rows", row.rows.into()),
            ("outcome", word(&row.outcome).into()),
            ("sqlstate", row.sqlstate.clone().into()),
            ("prev_hash", (&row.prev_hash).into()),
            ("hash", (&row.hash).into()),
        ])?;
    }
    frame.into_batch()
}
