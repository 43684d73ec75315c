//! `FLUSH TABLE t`: writes a streaming table's tail to Delta now.

use catalog::Privilege;

use super::{Outcome, Run, relations};
use crate::dialect::FlushTable;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &FlushTable) -> Result<Outcome> {
    let scope = &run.scope;
    let table = relations::find(scope, &s.name)?;
    privileges::check_relation(&scope.catalog, &scope.caller.role, table, Privilege::Insert)?;
    if table.kind != catalog::RelationKind::StreamingTable {
        let message = format!("\"{}\" is not a streaming table", table.name);
        return Err(Error::refused(SqlState::WRONG_OBJECT_TYPE, message)
            .with_hint("only streaming tables have rows that wait to be written"));
    }
    scope.touch(table.oid);
    scope.engine.stream.flush(table.oid).await?;
    relations::done(run, "FLUSH TABLE")
}
