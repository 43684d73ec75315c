//! `weir.dead_letters`: rows that tables refused, with what became of them since.
//!
//! A letter holds a whole row, so it is shown only to those who may see its table whole: its owner, and
//! roles with SELECT on every column. The rows are chosen inside a leaf that no expression of a query
//! is pushed into, so a condition that fails cannot tell of a row that is not shown.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use catalog::{Oid, RelationKind};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::JoinType;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as QueryResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{count, last_value, max};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableType, cast, col, lit, when,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;

use crate::engine::scan::WeirTable;
use crate::error::{Error, Result};
use crate::stream::internal;
use crate::system::frame::Frame;
use crate::system::{SystemContext, sees_whole};

/// Nothing where there are no letters to choose from.
pub(super) fn table(frame: &Frame, cx: &SystemContext) -> Result<Option<Arc<dyn TableProvider>>> {
    if !cx.head.tables.contains_key(&internal::DEAD_LETTERS) {
        return Ok(None);
    }
    Ok(Some(Arc::new(DeadLetters {
        schema: frame.schema(),
        plan: plan(cx)?,
    })))
}

/// The letters that the role may see, next to their newest attempt.
fn plan(cx: &SystemContext) -> Result<LogicalPlan> {
    let mut letters = scan(cx, internal::DEAD_LETTERS, "letters")?;
    if !cx.access().superuser() {
        let seen: Vec<Expr> = cx
            .catalog
            .relations
            .iter()
            .filter(|r| r.kind == RelationKind::StreamingTable)
            .filter(|r| sees_whole(&cx.catalog, &cx.role, r))
            .map(|r| lit(i64::from(r.oid.0)))
            .collect();
        letters = letters.filter(match seen.is_empty() {
            true => lit(false),
            false => col("letters.table_oid").in_list(seen, false),
        })?;
    }
    let newest = || vec![col("attempts.tried_at").sort(true, true)];
    let passed_at = when(col("attempts.passed"), col("attempts.tried_at")).end()?;
    let attempts = scan(cx, internal::REPLAYS, "attempts")?.aggregate(
        [col("attempts.letter_id")],
        [
            max(passed_at).alias("replayed_at"),
            count(lit(1)).alias("attempts"),
            last_value(col("attempts.sqlstate"), newest()).alias("new_sqlstate"),
            last_value(col("attempts.message"), newest()).alias("new_message"),
        ],
    )?;
    let kept = |name: &str| col(format!("letters.{name}"));
    // the attempts are held in memory for it, the letters pass by
    Ok(attempts
        .join(
            letters.build()?,
            JoinType::Right,
            (vec!["attempts.letter_id"], vec!["letters.id"]),
            None,
        )?
        .project([
            kept("id"),
            cast(kept("table_oid"), DataType::UInt32).alias("table_oid"),
            kept("table_schema"),
            kept("table_name"),
            kept("door"),
            kept("position"),
            kept("format"),
            kept("context"),
            kept("raw"),
            kept("truncated"),
            coalesce(vec![col("new_sqlstate"), kept("sqlstate")]).alias("sqlstate"),
            coalesce(vec![col("new_message"), kept("message")]).alias("message"),
            kept("rejected_at"),
            coalesce(vec![col("attempts"), lit(0i64)]).alias("attempts"),
            col("replayed_at"),
        ])?
        .build()?)
}

fn scan(cx: &SystemContext, oid: Oid, name: &str) -> Result<LogicalPlanBuilder> {
    let Some(head) = cx.head.tables.get(&oid) else {
        return Err(Error::Internal(format!("the table of {name} is not open")));
    };
    let table: Arc<dyn TableProvider> = Arc::new(WeirTable::new(Arc::clone(head), false));
    Ok(LogicalPlanBuilder::scan(
        name,
        provider_as_source(table),
        None,
    )?)
}

/// The letters of one statement.
#[derive(Debug)]
struct DeadLetters {
    schema: SchemaRef,
    plan: LogicalPlan,
}

#[async_trait]
impl TableProvider for DeadLetters {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        let inner = state.create_physical_plan(&self.plan).await?;
        let shown = Shown {
            schema: Arc::clone(&self.schema),
            inner,
        };
        Ok(Arc::new(StreamingTableExec::try_new(
            Arc::clone(&self.schema),
            vec![Arc::new(shown)],
            projection,
            [],
            false,
            limit,
        )?))
    }
}

/// Letters read at a time: each may be as long as [`crate::stream::letters::MAX_RAW`].
const AT_ONCE: usize = 128;

/// The leaf: what runs inside is not seen by the planner of the query around it.
#[derive(Debug)]
struct Shown {
    schema: SchemaRef,
    inner: Arc<dyn ExecutionPlan>,
}

impl PartitionStream for Shown {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let named = {
            let schema = Arc::clone(&schema);
            move |batch: QueryResult<RecordBatch>| {
                let batch = batch?;
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = batch.columns().to_vec();
                let schema = Arc::clone(&schema);
                Ok(RecordBatch::try_new_with_options(
                    schema, columns, &options,
                )?)
            }
        };
        let few = TaskContext::new(
            context.task_id(),
            context.session_id(),
            context.session_config().clone().with_batch_size(AT_ONCE),
            context.scalar_functions().clone(),
            context.higher_order_functions().clone(),
            context.aggregate_functions().clone(),
            context.window_functions().clone(),
            context.runtime_env(),
        );
        match execute_stream(Arc::clone(&self.inner), Arc::new(few)) {
            Ok(rows) => Box::pin(RecordBatchStreamAdapter::new(schema, rows.map(named))),
            Err(e) => {
                let failed = futures::stream::iter([Err(e)]);
                Box::pin(RecordBatchStreamAdapter::new(schema, failed))
            }
        }
    }
}
