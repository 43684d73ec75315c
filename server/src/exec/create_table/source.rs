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
    let mut given = source.options.clone();
    let schema_file = options::take_schema_file(&mut given)?;
    if schema_file.is_some() || options::reads_files(&given).is_some() {
        privileges::check_superuser(
            &run.scope.catalog,
            &run.scope.caller.role,
            "name files of the server",
        )?;
    }
    if let Some(path) = schema_file {
        let bytes = blocking(move || read(&path)).await??;
        options::put_schema(&mut given, bytes);
    }
    let columns = columns.to_vec();
    blocking(move || {
        let kept = options::declare(&given, &columns)?;
        Client::open(&Options::of(&kept, &columns)?, "weir")?;
        Ok(kept)
    })
    .await?
}

/// What a file of the server holds, if it can be a schema.
fn read(path: &str) -> Result<Vec<u8>> {
    let wrong = |what: String| {
        Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("the schema file \"{path}\" cannot be read"),
        )
        .with_detail(what)
    };
    // a pipe or a device would never end
    let size = std::fs::metadata(path).map_err(|e| wrong(e.kind().to_string()))?;
    if !size.is_file() {
        return Err(wrong("it is not a file".to_owned()));
    }
    if size.len() > options::SCHEMA_BYTES as u64 {
        return Err(wrong("it is too long for a schema".to_owned()));
    }
    std::fs::read(path).map_err(|e| wrong(e.kind().to_string()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Internal(format!("making a source failed: {e}")))
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
