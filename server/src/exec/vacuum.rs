//! `VACUUM t [RETAIN n HOURS] [DRY RUN]`: deletes files that left the table longer ago than that, or says
//! which. Versions that need them can be read no more.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::SqlType;

use super::optimize::{begun, guarded, watched};
use super::{Outcome, Run, relations, rows};
use crate::dialect::Vacuum;
use crate::error::Result;
use crate::governance::privileges;
use crate::jobs::vacuum;
use crate::types::field;

/// The columns of a dry run.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field("path", &SqlType::Text, false),
        field("bytes", &SqlType::Int8, false),
    ]))
}

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &Vacuum) -> Result<Outcome> {
    let scope = &run.scope;
    let engine = &scope.engine;
    let table = relations::find_table(scope, &s.name)?;
    privileges::check_owner(&scope.catalog, &scope.caller.role, table)?;
    scope.touch(table.oid);
    let keep = s.retain.unwrap_or(engine.config.jobs.vacuum_retention);
    if s.dry_run {
        // nobody cleans the log that is read
        let _turn = guarded(run, async { Ok(engine.jobs.turn(table.oid).await) }).await?;
        let found = vacuum::candidates(engine, table.oid, keep).await?;
        let paths = StringArray::from_iter_values(found.iter().map(|g| g.path.as_str()));
        let bytes = found
            .iter()
            .map(|g| i64::try_from(g.size).unwrap_or(i64::MAX));
        let bytes = Int64Array::from_iter_values(bytes);
        let batch = RecordBatch::try_new(schema(), vec![Arc::new(paths), Arc::new(bytes)])?;
        return Ok(rows::of_batch("VACUUM", batch));
    }
    let (job, _turn) = begun(run, table, "vacuum").await?;
    let work = Box::pin(vacuum::vacuum(engine, table.oid, keep, &job));
    let result = watched(run, &job, work).await;
    let detail = result.as_ref().ok().map(|garbage| vacuum::told(garbage));
    job.end(&result, detail);
    result?;
    relations::done(run, "VACUUM")
}
