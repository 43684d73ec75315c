//! `ALTER STREAMING TABLE t PAUSE | RESUME`: kept in the catalog, so a restart changes nothing of it.

use std::time::Duration;

use catalog::{Change, RelationKind};

use super::{Outcome, Run, relations};
use crate::dialect::{AlterStreamingTable, SourceAction};
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::kafka::options;
use crate::system::SourceState;

/// How long the statement waits for its source; after that the source follows by itself.
const SETTLE: Duration = Duration::from_secs(10);

/// Runs the statement. After PAUSE no more messages are stored.
pub(super) async fn execute(run: &Run, s: &AlterStreamingTable) -> Result<Outcome> {
    let scope = &run.scope;
    let oid = relations::find_table(scope, &s.name)?.oid;
    let engine = &scope.engine;
    let pause = s.action == SourceAction::Pause;
    {
        let _ddl = engine.ddl().await;
        let catalog = engine.catalog();
        let Some(found) = catalog.relation_by_oid(oid) else {
            return Err(Error::undefined_table(&s.name.to_string()));
        };
        privileges::check_owner(&catalog, &scope.caller.role, found)?;
        scope.touch(oid);
        if found.kind != RelationKind::StreamingTable {
            return Err(relations::wrong_kind(found, "a streaming table"));
        }
        if !options::is_source(&found.options) {
            return Err(Error::refused(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("streaming table \"{}\" has no source", found.name),
            )
            .with_hint("a source is declared when the table is made: CREATE STREAMING TABLE … FROM KAFKA (…)"));
        }
        if options::is_paused(&found.options) != pause {
            let mut relation = found.clone();
            match pause {
                true => relation
                    .options
                    .insert(options::PAUSED.to_owned(), "true".to_owned()),
                false => relation.options.remove(options::PAUSED),
            };
            engine.commit(vec![Change::PutRelation(relation)]).await?;
        }
    }
    engine.sources.change();
    engine
        .sources
        .settle(oid, SETTLE, |state| match pause {
            true => state == SourceState::Paused,
            false => !matches!(state, SourceState::Paused | SourceState::Starting),
        })
        .await;
    relations::done(run, "ALTER STREAMING TABLE")
}
