//! `ALTER TABLE t SET (acknowledge = '…', bloom_filter_columns = '…', flush_interval = '…', retention = '…',
//! segment_write_key = '…')`, `SET (schema_evolution = '…')`; `ALTER MATERIALIZED VIEW v SET (…)` is in `materialized_view`.
//!
//! `event_time` and the like decide what is stored, so they are set when a table is made; `flush_interval`
//! only decides when, `retention` how long, a key who, `acknowledge` when writers are
//! answered, `bloom_filter_columns` how files are written, `schema_evolution` and `on_violation` what becomes of
//! rows from now on.

mod materialized_view;

use std::sync::Arc;

use catalog::{Change, Relation, RelationKind, Snapshot};

use super::reshape::reshape;
use super::{Outcome, Run, create_table, evolve, relations};
use crate::dialect::AlterTableSet;
use crate::engine::open::parse_duration;
use crate::error::{Error, Result, SqlState};
use crate::governance::{privileges, write_key};
use crate::jobs::retention;
use crate::lake;
use crate::types::{Evolution, RESCUED};

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &AlterTableSet) -> Result<Outcome> {
    let scope = &run.scope;
    let found = relations::find(scope, &s.name)?;
    if found.kind == RelationKind::MaterializedView {
        return materialized_view::execute(run, found, &s.options).await;
    }
    let oid = found.oid;
    if let [(key, value)] = s.options.iter().collect::<Vec<_>>()[..]
        && key == "schema_evolution"
    {
        schema_evolution(run, found, value).await?;
        return relations::done(run, "ALTER TABLE");
    }
    let engine = &scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let Some(found) = catalog.relation_by_oid(oid) else {
        return Err(Error::undefined_table(&s.name.to_string()));
    };
    privileges::check_owner(&catalog, &scope.caller.role, found)?;
    scope.touch(oid);
    if found.kind != RelationKind::StreamingTable {
        return Err(Error::refused(
            SqlState::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a streaming table", found.name),
        )
        .with_hint(format!(
            "a {} has no options to set",
            relations::kind_name(found.kind)
        )));
    }
    let mut relation = found.clone();
    let mut interval = None;
    let mut filters = None;
    for (key, value) in &s.options {
        match key.as_str() {
            write_key::OPTION => {}
            "flush_interval" => interval = Some(parse_duration(value)?),
            "on_violation" => create_table::on_violation(value)?,
            "acknowledge" => create_table::options::acknowledge(value)?,
            "bloom_filter_columns" => {
                let (columns, partitions) = (&found.columns, &found.partition_by);
                filters = Some(create_table::options::bloom_filter_columns(
                    value, columns, partitions,
                )?);
            }
            "retention" => {
                if retention::parse(Some(value))?.is_some() {
                    retention::check_table(&catalog, found)?;
                }
            }
            "schema_evolution" => {
                return Err(Error::unsupported(
                    "option \"schema_evolution\" cannot be set together with others",
                    "set it in a statement of its own",
                ));
            }
            "dedup_key" | "dedup_window" | "event_time" => {
                return Err(Error::unsupported(
                    format!("option \"{key}\" cannot be changed"),
                    "acknowledge, bloom_filter_columns, flush_interval, on_violation, retention, segment_write_key and \
                     schema_evolution can: create a table with the options and copy the rows",
                ));
            }
            _ => {
                return Err(Error::refused(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unrecognized option \"{key}\""),
                )
                .with_hint(
                    "acknowledge, bloom_filter_columns, flush_interval, on_violation, retention and segment_write_key \
                     can be set",
                ));
            }
        }
        relation.options.insert(key.clone(), value.clone());
    }
    if s.options.contains_key(write_key::OPTION) {
        write_key::seal(&mut relation.options, oid, &catalog)?;
    }
    if let Some(columns) = filters {
        // what writes files asks the table: it must not know less than the catalog
        let stream = Arc::clone(&engine.stream);
        relations::to_its_end("set bloom_filter_columns", async move {
            let change = |known| async move { lake::keep_bloom_filters(known, &columns).await };
            stream.alter(oid, false, change).await
        })
        .await?;
    }
    engine.commit(vec![Change::PutRelation(relation)]).await?;
    if let Some(interval) = interval {
        engine.stream.set_flush_interval(oid, interval)?;
    }
    relations::done(run, "ALTER TABLE")
}

/// Rows from now on; `'rescue'` needs its column.
async fn schema_evolution(run: &Run, found: &Relation, value: &str) -> Result<()> {
    create_table::options::evolution("schema_evolution", value)?;
    let (scope, value) = (Arc::clone(&run.scope), value.to_owned());
    scope.touch(found.oid);
    let make = move |catalog: &Snapshot, before: &Relation| {
        privileges::check_owner(catalog, &scope.caller.role, before)?;
        if before.kind != RelationKind::StreamingTable {
            return Err(relations::wrong_kind(before, "a streaming table"));
        }
        let mut after = before.clone();
        after.options.insert("schema_evolution".to_owned(), value);
        let keeps = evolve::option(&after) == Some(Evolution::Rescue);
        if keeps && !after.columns.iter().any(|c| c.name == RESCUED) {
            after.columns.push(evolve::rescued_column());
        }
        Ok(Some(after))
    };
    reshape(&run.scope, found.oid, None, make).await.map(drop)
}
