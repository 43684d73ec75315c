//! `OPTIMIZE t [WHERE e] [ZORDER BY (c, …)]`: merges a table's small files, or orders its rows by several
//! columns at once. The rows stay as they are.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::{Relation, RelationKind, SqlType};
use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, TableFactor};

use super::{Outcome, Run, query, relations, rewrite, rows};
use crate::dialect::Optimize;
use crate::engine::scan;
use crate::engine::scope::Scope;
use crate::error::{Error, Result};
use crate::governance::privileges;
use crate::jobs::compact::{self, Done, Wish};
use crate::jobs::{Handle, Trigger};
use crate::types::field;

/// The columns.
pub(super) fn schema() -> SchemaRef {
    let names = [
        "files_removed",
        "files_added",
        "bytes_removed",
        "bytes_added",
        "rows",
    ];
    let fields = names.map(|name| field(name, &SqlType::Int8, false));
    Arc::new(Schema::new(fields.to_vec()))
}

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &Optimize) -> Result<Outcome> {
    let scope = &run.scope;
    let table = relations::find_table(scope, &s.name)?;
    privileges::check_owner(&scope.catalog, &scope.caller.role, table)?;
    scope.touch(table.oid);
    let Some(head) = scope.head.tables.get(&table.oid) else {
        return Err(Error::undefined_table(&table.name));
    };
    compact::check_order(head, &s.order)?;
    let (job, _turn) = begun(run, table, "optimize").await?;
    let work = Box::pin(optimized(run, s, table, &job));
    let result = watched(run, &job, work).await;
    job.end(&result, result.as_ref().ok().map(compact::told));
    let done = result?;
    relations::note_write(run, "OPTIMIZE")?;
    Ok(rows::of_batch("OPTIMIZE", batch(&done)?))
}

async fn optimized(run: &Run, s: &Optimize, table: &Relation, job: &Handle) -> Result<Done> {
    let engine = &run.scope.engine;
    if table.kind == RelationKind::StreamingTable {
        engine.stream.flush(table.oid).await?;
    }
    let wish = Wish {
        order: s.order.clone(),
        among: match &s.selection {
            None => None,
            Some(e) => Some(matching(run, &s.name, table, e).await?),
        },
        predicate: s.selection.as_ref().map(ToString::to_string),
    };
    compact::optimize(engine, table.oid, &wish, job).await
}

/// Paths of the files that may hold rows that meet a condition.
async fn matching(
    run: &Run,
    name: &ObjectName,
    table: &Relation,
    condition: &Expr,
) -> Result<HashSet<String>> {
    let engine = &run.scope.engine;
    let scope = Arc::new(Scope::new(engine, run.scope.caller.clone()));
    let Some(head) = scope.head.tables.get(&table.oid).cloned() else {
        return Err(Error::undefined_table(&table.name));
    };
    let mut from = rewrite::source_factor("", Ident::new(""));
    if let TableFactor::Table {
        name: of, alias, ..
    } = &mut from.relation
    {
        of.clone_from(name);
        *alias = None;
    }
    let first = table.columns.first().map(|c| c.name.clone());
    let alias = name.0.last().and_then(|p| p.as_ident()).cloned();
    let items = alias.zip(first);
    let items = items.map(|(alias, column)| rewrite::item(&alias, &column));
    let found = query::select(
        items.into_iter().collect(),
        vec![from],
        Some(condition.clone()),
    )?;
    let (state, plan) = query::plan(&scope, found, &run.params).await?;
    let physical = state.create_physical_plan(&plan).await?;
    Ok(scan::scanned(&physical, &head.lake)?)
}

fn batch(done: &Done) -> Result<RecordBatch> {
    let numbers = [
        done.before.files,
        done.after.files,
        done.before.bytes,
        done.after.bytes,
        done.after.rows,
    ];
    let columns = numbers.map(|n| {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        Arc::new(Int64Array::from(vec![n])) as ArrayRef
    });
    Ok(RecordBatch::try_new(schema(), columns.to_vec())?)
}

/// A job of a statement, once it is the table's turn.
pub(super) async fn begun(
    run: &Run,
    table: &Relation,
    name: &str,
) -> Result<(Handle, crate::jobs::registry::Turn)> {
    let jobs = &run.scope.engine.jobs;
    let turn = guarded(run, async { Ok(jobs.turn(table.oid).await) }).await?;
    Ok((jobs.begin(name, table.oid, Trigger::Statement), turn))
}

/// Waits for a job, and stops it when the statement is cancelled or late.
pub(super) async fn watched<T>(
    run: &Run,
    job: &Handle,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let result = guarded(run, work).await;
    if result.is_err() {
        job.stop().cancel();
    }
    result
}

/// Waits until the statement is cancelled or late, at the longest.
pub(super) async fn guarded<T>(run: &Run, work: impl Future<Output = Result<T>>) -> Result<T> {
    let deadline = async {
        match run.deadline {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = work => result,
        () = run.cancel.cancelled() => Err(rows::canceled()),
        () = deadline => Err(rows::timed_out()),
    }
}
