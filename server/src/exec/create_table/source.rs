//! `FROM KAFKA (…)` of a streaming table: checked, kept, begun.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::{Column, Relation};

use super::Run;
use crate::dialect::CreateTable;
use crate::dialect::refuse::clause;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::kafka::client::Client;
use crate::kafka::options::{self, Options};
use crate::system::SourceState;

/// How long the statement waits for its source to begin, so that what is sent to a topic after it is
/// read by a source that starts at the latest message too. A broker that is away is not waited for.
const BEGIN: Duration = Duration::from_secs(4);

/// Refuses sources that are not there, and tables that cannot have one.
pub(super) fn refuse(s: &CreateTable) -> Result<()> {
    let Some(source) = &s.source else {
        return Ok(());
    };
    clause(
        source.kind != "kafka",
        &format!("FROM {}", source.kind.to_uppercase()),
        "use FROM KAFKA (…), or send the rows with INSERT, COPY or HTTP",
    )?;
    if !s.streaming {
        return Err(Error::refused(
            SqlState::INVALID_TABLE_DEFINITION,
            "an ordinary table cannot have a source",
        )
        .with_hint("use CREATE STREAMING TABLE … FROM KAFKA (…)"));
    }
    Ok(())
}

/// What the table's options say of its source; nothing when it has none. The client is made once to
/// see that it takes its properties.
pub(super) async fn declare(
    run: &Run,
    s: &CreateTable,
    columns: &[Column],
) -> Result<BTreeMap<String, String>> {
    let Some(source) = &s.source else {
        return Ok(BTreeMap::new());
    };
    let kept = options::declare(&source.options, columns)?;
    if options::reads_files(&kept).is_some() {
        privileges::check_superuser(
            &run.scope.catalog,
            &run.scope.caller.role,
            "name files of the server",
        )?;
    }
    let options = Options::of(&kept, columns)?;
    tokio::task::spawn_blocking(move || Client::open(&options, "weir").map(drop))
        .await
        .map_err(|e| Error::Internal(format!("making a Kafka client failed: {e}")))??;
    Ok(kept)
}

/// Lets the source of a table that was just made begin.
pub(super) async fn begin(run: &Run, made: &Relation) {
    if !options::is_source(&made.options) {
        return;
    }
    let sources = &run.scope.engine.sources;
    sources.change();
    sources
        .settle(made.oid, BEGIN, |state| state != SourceState::Starting)
        .await;
}
