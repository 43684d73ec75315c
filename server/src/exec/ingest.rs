//! Rows into a table: the end of INSERT, COPY and the ingest doors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::{Oid, Privilege, Relation, RelationKind};

use super::evolve;
use super::write::Intake;
use crate::engine::Engine;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::metrics;
use crate::stream::Appended;
use crate::stream::head::Lsn;
use crate::stream::line::Turn;
use crate::types;

/// The table of that name, if rows can be put into it.
///
/// # Errors
/// 42P01, 3F000, 42809.
pub fn target<'a>(scope: &'a Scope, schema: &str, table: &str) -> Result<&'a Relation> {
    let Some(relation) = scope.catalog.relation(schema, table) else {
        if crate::system::SCHEMAS.contains(&schema) {
            return Err(Error::denied("table", table));
        }
        if scope.catalog.schema(schema).is_none() {
            return Err(Error::refused(
                SqlState::INVALID_SCHEMA_NAME,
                format!("schema \"{schema}\" does not exist"),
            ));
        }
        let shown = if schema == scope.caller.schema {
            table.to_owned()
        } else {
            format!("{schema}.{table}")
        };
        return Err(Error::undefined_table(&shown));
    };
    match relation.kind {
        RelationKind::Table | RelationKind::StreamingTable => Ok(relation),
        RelationKind::View | RelationKind::MaterializedView => Err(Error::refused(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot change view \"{table}\""),
        )
        .with_hint("change the table it reads")),
    }
}

/// Refuses (42501) who may not add rows: without INSERT, or the table's write key.
pub fn check_insert(scope: &Scope, relation: &Relation) -> Result<()> {
    if scope.caller.opened == Some(relation.oid) {
        return Ok(());
    }
    privileges::check_relation(
        &scope.catalog,
        &scope.caller.role,
        relation,
        Privilege::Insert,
    )
}

/// The columns rows may bring: all but the generated ones; those with a default say so, and the schema
/// says what becomes of others.
pub fn accepted_schema(relation: &Relation) -> SchemaRef {
    let evolution = evolve::option(relation);
    let fields: Vec<_> = relation
        .columns
        .iter()
        .filter(|c| c.generated.is_none())
        .filter(|c| evolution.is_none() || c.name != types::RESCUED)
        .map(|c| {
            let field = types::field(&c.name, &c.sql_type, c.nullable || c.default.is_some());
            match &c.default {
                None => field,
                Some(text) => {
                    let mut metadata: HashMap<_, _> = field.metadata().clone();
                    metadata.insert(types::DEFAULT_KEY.to_owned(), text.clone());
                    field.with_metadata(metadata)
                }
            }
        })
        .collect();
    let schema = Schema::new(fields);
    Arc::new(match evolution {
        None => schema,
        Some(evolution) => evolution.marking(schema),
    })
}

/// What became of rows that were to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Rows that this call stored.
    pub accepted: u64,
    /// Rows that the table had already, by its `dedup_key`.
    pub duplicate: u64,
    /// The position that a later read must contain to see the rows.
    pub lsn: Lsn,
}

impl Stored {
    /// Of that many rows, some of which the table may have had.
    fn of(rows: u64, appended: Appended) -> Self {
        metrics::duplicates(appended.duplicates);
        Self {
            accepted: rows.saturating_sub(appended.duplicates),
            duplicate: appended.duplicates,
            lsn: appended.lsn,
        }
    }
}

/// Stores rows, all or none, but those that the table has already; durable and visible on return.
/// They are stored when their `turn` has come.
///
/// # Errors
/// 42501 without INSERT; what `Intake::apply` and the log report.
pub async fn store(
    scope: &Arc<Scope>,
    schema: &str,
    table: &str,
    batches: Vec<RecordBatch>,
    turn: Turn,
) -> Result<Stored> {
    let relation = target(scope, schema, table)?;
    check_insert(scope, relation)?;
    scope.touch(relation.oid);
    let (scope, batches) = evolve::prepare(scope, relation, batches).await?;
    let scope = &scope;
    let relation = target(scope, schema, table)?;
    let intake = Intake::new(scope, relation)?;
    let rows = batches
        .iter()
        .map(|b| intake.apply(b))
        .collect::<Result<Vec<_>>>()?;
    append_in_turn(scope, relation, rows, turn).await
}

/// Rows of a source as its table stores them, by the rights of the table's owner. Waits when the table
/// gets columns for them: to be called where a thread may wait.
///
/// # Errors
/// What `Intake::apply` and the change of columns report.
pub fn accept(
    scope: &Arc<Scope>,
    relation: &Relation,
    batches: Vec<RecordBatch>,
) -> Result<Vec<RecordBatch>> {
    let (scope, batches) = match evolve::option(relation) {
        None => (Arc::clone(scope), batches),
        Some(_) => {
            tokio::runtime::Handle::current().block_on(evolve::prepare(scope, relation, batches))?
        }
    };
    let Some(relation) = scope.catalog.relation_by_oid(relation.oid) else {
        return Err(Error::undefined_table(&relation.name));
    };
    let intake = Intake::new(&scope, relation)?;
    batches.iter().map(|b| intake.apply(b)).collect()
}

/// Stores rows of a source that were accepted, and where the source stands then, all or none.
///
/// # Errors
/// 53400 when there is no room within `wait`; nothing was stored then.
pub async fn append_from(
    engine: &Engine,
    table: Oid,
    rows: Vec<RecordBatch>,
    source: &[u8],
    wait: Duration,
) -> Result<Stored> {
    let count = rows.iter().map(|b| b.num_rows() as u64).sum();
    let parts = vec![(table, rows)];
    let appended = engine
        .stream
        .append_from(parts, source, wait, Turn::default());
    Ok(Stored::of(count, appended.await?))
}

/// Stores rows that passed the table's `Intake`.
pub async fn append(scope: &Scope, relation: &Relation, rows: Vec<RecordBatch>) -> Result<Stored> {
    append_in_turn(scope, relation, rows, Turn::default()).await
}

async fn append_in_turn(
    scope: &Scope,
    relation: &Relation,
    rows: Vec<RecordBatch>,
    mut turn: Turn,
) -> Result<Stored> {
    let count: u64 = rows.iter().map(|b| b.num_rows() as u64).sum();
    let stream = &scope.engine.stream;
    if relation.kind == RelationKind::StreamingTable {
        let appended = stream.append_in_turn(vec![(relation.oid, rows)], turn);
        return Ok(Stored::of(count, appended.await?));
    }
    turn.come().await?;
    if count > 0 {
        stream
            .lake_append(
                relation.oid,
                futures::stream::iter(rows.into_iter().map(Ok)),
            )
            .await?;
    }
    turn.over();
    Ok(Stored {
        accepted: count,
        duplicate: 0,
        lsn: stream.head().visible,
    })
}
