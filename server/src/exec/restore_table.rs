//! `RESTORE TABLE t TO VERSION AS OF n | TIMESTAMP AS OF '…'`: an older version's rows become the newest
//! ones, in one commit. Columns stay as they are, positions are never given out again.

use catalog::RelationKind;

use super::optimize::begun;
use super::{Outcome, Run, relations, rewrite};
use crate::dialect::RestoreTable;
use crate::dialect::time_travel::TableVersion;
use crate::engine::names::parse_time;
use crate::error::{Error, Result};
use crate::governance::privileges;
use crate::lake::crash::crash_point;
use crate::lake::{self, At, Operation};
use crate::stream;

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &RestoreTable) -> Result<Outcome> {
    let scope = &run.scope;
    let engine = &scope.engine;
    let table = relations::find_table(scope, &s.name)?;
    privileges::check_owner(&scope.catalog, &scope.caller.role, table)?;
    scope.touch(table.oid);
    let at = match &s.version {
        TableVersion::Version(number) => At::Version(*number),
        TableVersion::Timestamp(text) => At::Timestamp(parse_time(text)?),
    };
    let views = rewrite::check_views(scope, table)?;
    let Some(head) = scope.head.tables.get(&table.oid).cloned() else {
        return Err(Error::undefined_table(&table.name));
    };
    // no vacuum deletes what is about to come back
    let (job, _turn) = begun(run, table, "restore").await?;
    let change = async |handle| {
        rewrite::before_change(scope, &views).await?;
        let now = head.lake.with_table(handle)?;
        let then = lake::open(&now.root, at).await?;
        let lake::Difference { adds, removes } = lake::difference(&now, &then).await?;
        if adds.is_empty() && removes.is_empty() {
            return Ok((now.table, false));
        }
        let commit = lake::Commit {
            adds,
            removes,
            txn: Some(stream::next_change(&now, table.oid).await?),
            operation: Operation::Restore {
                version: then.version,
            },
            ..lake::Commit::default()
        };
        crash_point("restore-before-commit");
        let after = lake::commit(&now, commit).await?;
        crash_point("restore-after-commit-before-publish");
        Ok((after.table, true))
    };
    // a commit that has begun is not given up: nobody would know whether it was made
    let restored = Box::pin(engine.stream.exclusive(table.oid, change)).await;
    job.end(&restored, None);
    let changed = restored?;
    if changed && table.kind == RelationKind::StreamingTable {
        rewrite::after_change(scope, &views);
    }
    relations::done(run, "RESTORE TABLE")
}
