//! `schema_evolution = 'add'`: columns for new keys, wider types for values that do not fit.
//!
//! A key's type is inferred from its values: booleans, whole numbers as `bigint`, other numbers as
//! `double precision`, objects and arrays as `jsonb`, everything else (texts that look like times
//! included) as `text`; so every value can be read back. A column of another type becomes wider
//! (`types::widenings`) if nothing is made from it. Many writers may bring one key at a time: each asks
//! for what it needs over the newest columns, so one makes it and the others find it. Rows that no
//! change would make room for are left out: [`sift`] finds them.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use catalog::{AuditOutcome, AuditRow, Oid, Relation, Snapshot};

use super::super::alter_table::{quoted, widenable};
use super::super::reshape::reshape;
use super::needs::{self, Needs};
use super::part::Part;
use super::place::placed;
use super::sift::{Limits, misfit, sift};
use super::{Bad, Prepared, first, option};
use crate::decode::BadRows;
use crate::engine::activity::now_micros;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::types::Evolution;

/// A table that stores more is not written anew to change a type, unless somebody asks for it.
const MOST_BYTES: u64 = 256 << 20;
/// How often rows are looked at again because the table has changed meanwhile.
const ATTEMPTS: usize = 16;
/// Characters of a change that its audit row shows.
const LONGEST_STATEMENT: usize = 4096;

/// Rows in the table's columns, after these have become what the good ones need.
pub(super) async fn prepare(
    scope: &Arc<Scope>,
    table: &Relation,
    batches: Vec<RecordBatch>,
    bad_rows: BadRows,
) -> Result<(Arc<Scope>, Vec<Prepared>)> {
    let parts = batches.into_iter().map(Part::of);
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let mut scope = Arc::clone(scope);
    let mut table = table.clone();
    let mut limits = Limits::default();
    for _ in 0..ATTEMPTS {
        if fits(&scope, &table, &parts, &limits)? {
            let none = parts.iter().map(|_| Bad::new()).collect();
            let rows = prepared(&scope, &table, parts, none)?;
            return Ok((scope, rows));
        }
        let sifted = sift(&scope, &table, &parts, &limits)?;
        if bad_rows == BadRows::Refuse {
            first(&sifted.bad)?;
        }
        if !sifted.changes {
            let rows = prepared(&scope, &table, sifted.good, sifted.bad)?;
            return Ok((scope, rows));
        }
        let asked = scope.catalog.generation;
        let evolved = evolve(&scope, table.oid, sifted.needs, limits.as_text).await;
        scope = Arc::new(Scope::new(&scope.engine, scope.caller.clone()));
        if let Err(e) = evolved
            && !limits.learn(&e)
            && (scope.catalog.generation == asked || !may_be_outdated(&e))
        {
            return Err(in_rows(e));
        }
        let now = scope.catalog.relation_by_oid(table.oid);
        table = now
            .ok_or_else(|| Error::undefined_table(&table.name))?
            .clone();
        if option(&table) != Some(Evolution::Add) {
            return Err(again(&table));
        }
    }
    Err(again(&table))
}

/// What the table would become, and the rows in its columns then.
pub(super) fn trial(
    scope: &Arc<Scope>,
    table: &Relation,
    batches: Vec<RecordBatch>,
) -> Result<(Relation, Vec<Prepared>)> {
    let parts = batches.into_iter().map(Part::of);
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let limits = Limits::default();
    let sifted = sift(scope, table, &parts, &limits)?;
    let changes = needs::changed(table, &sifted.needs, limits.as_text)?;
    let table = needs::grown(table.clone(), changes);
    let rows = prepared(scope, &table, sifted.good, sifted.bad)?;
    Ok((table, rows))
}

/// True when the table has a place for all values, or none that it could get: the usual case.
fn fits(scope: &Scope, table: &Relation, parts: &[Part], limits: &Limits) -> Result<bool> {
    if parts.iter().any(|part| !part.broken.is_empty()) {
        return Ok(false);
    }
    let needs = needs::of(table, parts, &scope.caller.time_zone)?;
    let changes = needs::changed(table, &needs, limits.as_text);
    Ok(changes.is_ok_and(|changes| changes.is_empty()))
}

fn prepared(
    scope: &Arc<Scope>,
    table: &Relation,
    parts: Vec<Part>,
    bad: Vec<Bad>,
) -> Result<Vec<Prepared>> {
    let rows = parts.into_iter().zip(bad).map(|(part, bad)| {
        let rows = part.rows.clone();
        let batch = placed(scope, table, part)?;
        Ok(Prepared { batch, rows, bad })
    });
    rows.collect()
}

impl Limits {
    /// Takes in what a failed change tells of the table; false when that is nothing.
    fn learn(&mut self, e: &Error) -> bool {
        match e.state() {
            // whole numbers that a double would round: a text holds both
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE if !self.as_text => self.as_text = true,
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE if self.frozen.is_none() => {
                self.frozen = Some(too_much(e).report());
            }
            _ => return false,
        }
        true
    }
}

/// True for a refusal that may be another one over newer columns.
fn may_be_outdated(e: &Error) -> bool {
    let SqlState(code) = e.state();
    ["0A", "22", "42", "54"].contains(&&code[..2])
}

fn again(table: &Relation) -> Error {
    Error::refused(
        SqlState::SERIALIZATION_FAILURE,
        format!("table \"{}\" is being altered", table.name),
    )
    .with_hint("send the rows again")
}

/// Makes the table's columns what the rows need, over what they are by now.
async fn evolve(scope: &Arc<Scope>, table: Oid, needs: Needs, as_text: bool) -> Result<()> {
    let actions: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let done = Arc::clone(&actions);
    let make = move |catalog: &Snapshot, before: &Relation| {
        let changes = needs::changed(before, &needs, as_text)?;
        let mut said = Vec::new();
        for change in &changes {
            let (name, ty) = (quoted(&change.name), &change.sql_type);
            match change.at.and_then(|at| before.columns.get(at)) {
                None => said.push(format!("ADD COLUMN {name} {ty}")),
                Some(column) => {
                    widenable(catalog, before, column, ty).map_err(|e| misfit(column, &e))?;
                    said.push(format!("ALTER COLUMN {name} TYPE {ty}"));
                }
            }
        }
        if said.is_empty() {
            return Ok(None);
        }
        *done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = said;
        Ok(Some(needs::grown(before.clone(), changes)))
    };
    let Some(after) = reshape(scope, table, Some(MOST_BYTES), make).await? else {
        return Ok(());
    };
    let said = actions
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .join(", ");
    audit(scope, &after, &said).await
}

/// Limits of the table are what is wrong with rows that would need more.
fn in_rows(e: Error) -> Error {
    match e.state() {
        SqlState("54011") | SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => too_much(&e),
        _ => e,
    }
}

fn too_much(e: &Error) -> Error {
    let report = e.report();
    let state = match report.state {
        SqlState("54011") => SqlState::UNDEFINED_COLUMN,
        _ => SqlState::INVALID_TEXT_REPRESENTATION,
    };
    Error::refused(state, "the rows need columns that the table cannot have")
        .with_detail(report.message)
        .with_hint("schema_evolution = 'rescue' keeps every key and value")
}

/// The change's own row: nobody wrote the statement.
async fn audit(scope: &Scope, table: &Relation, actions: &str) -> Result<()> {
    let object = scope.catalog.qualified_name(table);
    tracing::info!(table = %object, actions, "columns evolved");
    let name = quoted(&table.name);
    let row = AuditRow {
        seq: 0,
        at_micros: now_micros(),
        session: String::new(),
        door: "system".to_owned(),
        role: scope.caller.role.clone(),
        command: "ALTER TABLE".to_owned(),
        statement: format!("ALTER TABLE {name} {actions}")
            .chars()
            .take(LONGEST_STATEMENT)
            .collect(),
        objects: vec![object],
        rows: None,
        outcome: AuditOutcome::Ok,
        sqlstate: None,
        prev_hash: String::new(),
        hash: String::new(),
    };
    scope.engine.audit.record(row).await
}
