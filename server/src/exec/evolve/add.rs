//! `schema_evolution = 'add'`: columns for new keys, wider types for values that do not fit.
//!
//! A key's type is inferred from its values: booleans, whole numbers as `bigint`, other numbers as
//! `double precision`, objects and arrays as `jsonb`, everything else (texts that look like times
//! included) as `text`; so every value can be read back. A column of another type becomes wider
//! (`types::widenings`) if nothing is made from it. Many writers may bring one key at a time: each asks
//! for what it needs over the newest columns, so one makes it and the others find it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{AuditOutcome, AuditRow, Column, Oid, Relation, Snapshot, SqlType};
use datafusion::common::DFSchema;
use serde_json::value::RawValue;

use super::super::alter_table::widenable;
use super::super::reshape::{MAX_COLUMNS, is_exact, reshape};
use super::super::write::{evaluate, physical_expr};
use super::infer::Kind;
use super::{column, fit, members, option, rescued};
use crate::engine::activity::now_micros;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::types::{self, Evolution, LSN, RESCUED};

/// A table that stores more is not written anew to change a type, unless somebody asks for it.
const MOST_BYTES: u64 = 256 << 20;
/// How often rows are looked at again because the table has changed meanwhile.
const ATTEMPTS: usize = 16;
/// Characters of a change that its audit row shows.
const LONGEST_STATEMENT: usize = 4096;
/// PostgreSQL's longest name.
const LONGEST_NAME: usize = 63;
/// What the names of Delta's columns cannot hold.
const FORBIDDEN: [char; 8] = [' ', ',', ';', '{', '}', '(', ')', '='];

/// Values without a column, by key; each with its row.
type Strays = BTreeMap<String, Vec<(usize, Box<RawValue>)>>;

/// What the rows need.
#[derive(Debug, Clone, PartialEq)]
enum Need {
    /// A place for JSON values like these.
    Json(Kind),
    /// A place for an Arrow column of that type.
    Typed(SqlType),
}

/// Rows in the table's columns, after these have become what the rows need.
pub(super) async fn prepare(
    scope: &Arc<Scope>,
    table: &Relation,
    batches: Vec<RecordBatch>,
) -> Result<(Arc<Scope>, Vec<RecordBatch>)> {
    let strays = batches.iter().map(strays).collect::<Result<Vec<_>>>()?;
    let mut scope = Arc::clone(scope);
    let mut table = table.clone();
    let mut as_text = false;
    for _ in 0..ATTEMPTS {
        let needs = needs(&table, &batches, &strays, &scope.caller.time_zone)?;
        if changed(&table, &needs, as_text)?.is_empty() {
            let rows = batches.iter().zip(strays);
            let rows = rows.map(|(batch, strays)| placed(&scope, &table, batch, strays));
            let rows = rows.collect::<Result<Vec<_>>>()?;
            return Ok((scope, rows));
        }
        match evolve(&scope, table.oid, needs, as_text).await {
            Ok(()) => {}
            // whole numbers that a double would round: a text holds both
            Err(e) if e.state() == SqlState::NUMERIC_VALUE_OUT_OF_RANGE && !as_text => {
                as_text = true;
            }
            Err(e) => return Err(e),
        }
        scope = Arc::new(Scope::new(&scope.engine, scope.caller.clone()));
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

fn again(table: &Relation) -> Error {
    Error::refused(
        SqlState::SERIALIZATION_FAILURE,
        format!("table \"{}\" is being altered", table.name),
    )
    .with_hint("send the rows again")
}

fn strays(batch: &RecordBatch) -> Result<Strays> {
    let mut all = Strays::new();
    for (row, text) in rescued(batch)?.into_iter().flatten().enumerate() {
        let Some(text) = text else { continue };
        let object: HashMap<String, Box<RawValue>> = serde_json::from_str(&text).map_err(|_| {
            Error::refused(
                SqlState::INVALID_TEXT_REPRESENTATION,
                format!("column \"{RESCUED}\" takes JSON objects as text"),
            )
        })?;
        for (key, value) in object {
            all.entry(key).or_default().push((row, value));
        }
    }
    Ok(all)
}

fn needs(
    table: &Relation,
    batches: &[RecordBatch],
    strays: &[Strays],
    zone: &str,
) -> Result<BTreeMap<String, Need>> {
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    for (key, values) in strays.iter().flatten() {
        for (_, value) in values {
            if let Some(kind) = Kind::of(value.get()) {
                need(&mut needs, key, Need::Json(kind));
            }
        }
    }
    for batch in batches {
        for (field, given) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if field.name() == RESCUED {
                continue;
            }
            match column(table, field.name()) {
                None if given.null_count() < given.len() => {
                    need(&mut needs, field.name(), Need::Typed(stored_type(field)));
                }
                // by far the usual case, and nothing to look at
                Some(known) if given.data_type() == &types::arrow_type(&known.sql_type) => {}
                Some(known) if known.generated.is_none() && fit(given, known, zone).is_err() => {
                    need(&mut needs, field.name(), typed(field, given)?);
                }
                _ => {}
            }
        }
    }
    Ok(needs)
}

fn need(needs: &mut BTreeMap<String, Need>, key: &str, more: Need) {
    let all = match needs.remove(key) {
        None => more,
        Some(before) if before == more => more,
        Some(before) => Need::Json(kind(&before).with(kind(&more))),
    };
    needs.insert(key.to_owned(), all);
}

/// What values of a type are to a column of another.
fn kind(need: &Need) -> Kind {
    match need {
        Need::Json(kind) => *kind,
        Need::Typed(ty) => match ty {
            SqlType::Bool => Kind::Bool,
            SqlType::Int2 | SqlType::Int4 => Kind::Whole { exact: true },
            SqlType::Int8 => Kind::Whole { exact: false },
            SqlType::Float4 | SqlType::Float8 => Kind::Double,
            SqlType::Json | SqlType::Jsonb => Kind::Json,
            _ => Kind::Text,
        },
    }
}

/// What an Arrow column that does not fit needs.
fn typed(field: &Field, given: &ArrayRef) -> Result<Need> {
    let ty = stored_type(field);
    if ty != SqlType::Int8 {
        return Ok(Need::Typed(ty));
    }
    let whole = cast(given, &DataType::Int64)?;
    let mut whole = whole.as_primitive::<Int64Type>().iter().flatten();
    let exact = whole.all(|n| is_exact(n, None));
    Ok(Need::Json(Kind::Whole { exact }))
}

/// The type of a column made after an Arrow field: what has no storable type of its own becomes JSON.
fn stored_type(field: &Field) -> SqlType {
    match types::sql_type(field) {
        SqlType::Record(_) => SqlType::Jsonb,
        SqlType::Array(of) if matches!(*of, SqlType::Record(_) | SqlType::Array(_)) => {
            SqlType::Jsonb
        }
        other => other,
    }
}

/// A column that must be other than it is.
#[derive(Debug)]
struct Changed {
    /// Where it stands, if it is there.
    at: Option<usize>,
    name: String,
    sql_type: SqlType,
}

fn changed(
    table: &Relation,
    needs: &BTreeMap<String, Need>,
    as_text: bool,
) -> Result<Vec<Changed>> {
    let mut all = Vec::new();
    for (name, need) in needs {
        let at = table.columns.iter().position(|c| &c.name == name);
        let at = at.filter(|_| name != RESCUED);
        let sql_type = match at.and_then(|at| table.columns.get(at)) {
            Some(column) => {
                let mut wanted = kind(need).widened(&column.sql_type);
                let rounds = wanted == SqlType::Float8 && column.sql_type == SqlType::Int8;
                if rounds && as_text {
                    wanted = SqlType::Text;
                }
                if wanted == column.sql_type {
                    continue;
                }
                wanted
            }
            None => {
                check_name(table, name)?;
                match need {
                    Need::Json(kind) => kind.sql_type(),
                    Need::Typed(ty) => ty.clone(),
                }
            }
        };
        all.push(Changed {
            at,
            name: name.clone(),
            sql_type,
        });
    }
    Ok(all)
}

/// Refuses keys that cannot be names of columns, here or for other readers of the table.
fn check_name(table: &Relation, name: &str) -> Result<()> {
    let bad = |c: char| c.is_control() || FORBIDDEN.contains(&c);
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > LONGEST_NAME {
        "it is longer than 63 bytes"
    } else if name.contains(bad) {
        "it has blanks, control characters or one of , ; { } ( ) ="
    } else if name == LSN || name == RESCUED {
        "the name is reserved"
    } else if table
        .columns
        .iter()
        .any(|c| c.name.to_lowercase() == name.to_lowercase())
    {
        "a column has the name in other case"
    } else if table.columns.len() >= MAX_COLUMNS {
        "the table has as many columns as it may have"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(LONGEST_NAME).collect();
    Err(Error::refused(
        SqlState::UNDEFINED_COLUMN,
        format!(
            "key \"{}\" cannot become a column of \"{}\"",
            shown.escape_debug(),
            table.name
        ),
    )
    .with_detail(why)
    .with_hint("schema_evolution = 'rescue' keeps every key"))
}

/// Makes the table's columns what the rows need, over what they are by now.
async fn evolve(
    scope: &Arc<Scope>,
    table: Oid,
    needs: BTreeMap<String, Need>,
    as_text: bool,
) -> Result<()> {
    let actions: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let done = Arc::clone(&actions);
    let make = move |catalog: &Snapshot, before: &Relation| {
        let mut after = before.clone();
        let mut said = Vec::new();
        for change in changed(before, &needs, as_text)? {
            let name = super::super::alter_table::quoted(&change.name);
            match change.at.and_then(|at| after.columns.get_mut(at)) {
                None => {
                    said.push(format!("ADD COLUMN {name} {}", change.sql_type));
                    after.columns.push(Column {
                        name: change.name,
                        sql_type: change.sql_type,
                        nullable: true,
                        default: None,
                        generated: None,
                        comment: None,
                        since: None,
                    });
                }
                Some(column) => {
                    widenable(catalog, before, column, &change.sql_type)
                        .map_err(|e| misfit(column, &e))?;
                    said.push(format!("ALTER COLUMN {name} TYPE {}", change.sql_type));
                    column.sql_type = change.sql_type;
                }
            }
        }
        if said.is_empty() {
            return Ok(None);
        }
        *done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = said;
        Ok(Some(after))
    };
    let reshaped = reshape(scope, table, Some(MOST_BYTES), make).await;
    let Some(after) = reshaped.map_err(in_rows)? else {
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
    let state = match e.state() {
        SqlState("54011") => SqlState::UNDEFINED_COLUMN,
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => SqlState::INVALID_TEXT_REPRESENTATION,
        _ => return e,
    };
    let report = e.report();
    Error::refused(state, "the rows need columns that the table cannot have")
        .with_detail(report.message)
        .with_hint("schema_evolution = 'rescue' keeps every key and value")
}

fn misfit(column: &Column, why: &Error) -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!(
            "a value does not fit column \"{}\" of type {}",
            column.name, column.sql_type
        ),
    )
    .with_detail(format!("its type cannot become wider: {why}"))
}

/// The change's own row: nobody wrote the statement.
async fn audit(scope: &Scope, table: &Relation, actions: &str) -> Result<()> {
    let object = scope.catalog.qualified_name(table);
    tracing::info!(table = %object, actions, "columns evolved");
    let name = super::super::alter_table::quoted(&table.name);
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

/// The batch with its strays in columns of their own.
fn placed(
    scope: &Arc<Scope>,
    table: &Relation,
    batch: &RecordBatch,
    mut strays: Strays,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, given) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if field.name() == RESCUED {
            continue;
        }
        let known = column(table, field.name());
        // a column of nothing but NULL that the table does not have says nothing
        if known.is_none() && given.null_count() == given.len() {
            continue;
        }
        let strays = strays.remove(field.name()).unwrap_or_default();
        let given = match known {
            Some(known) => {
                let given = in_type_of(scope, field, given, &known.sql_type)?;
                patched(given, &strays, &known.sql_type)?
            }
            None => Arc::clone(given),
        };
        let ty = given.data_type().clone();
        fields.push(Arc::new(Field::new(field.name(), ty, true)));
        columns.push(given);
    }
    for (key, values) in strays {
        let Some(known) = column(table, &key) else {
            continue; // null in every row
        };
        let nothing = arrow::array::new_null_array(&DataType::Utf8, rows);
        let given = patched(nothing, &values, &known.sql_type)?;
        fields.push(Arc::new(Field::new(&key, given.data_type().clone(), true)));
        columns.push(given);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

/// Values on their way into a column that an assignment would not take them to: nested ones into JSON,
/// numbers into text as PostgreSQL spells them.
fn in_type_of(
    scope: &Arc<Scope>,
    field: &Field,
    given: &ArrayRef,
    ty: &SqlType,
) -> Result<ArrayRef> {
    let rows = given.len();
    let nested = given.data_type().is_nested();
    match ty {
        SqlType::Json | SqlType::Jsonb if !is_text(given.data_type()) => json(field, given),
        SqlType::Text if nested => json(field, given),
        SqlType::Text if given.data_type().is_floating() => {
            let state = scope.state()?;
            let value = Arc::new(Field::new("value", given.data_type().clone(), true));
            let schema = Arc::new(Schema::new(vec![value]));
            let columns = DFSchema::try_from(schema.as_ref().clone())?;
            let text = crate::dialect::parse_expr("CAST(value AS text)")?;
            let expr = physical_expr(&state, text, &columns)?;
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let columns = vec![Arc::clone(given)];
            let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
            evaluate(&expr, &batch)
        }
        _ => Ok(Arc::clone(given)),
    }
}

fn is_text(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// Each value as JSON text.
fn json(field: &Field, given: &ArrayRef) -> Result<ArrayRef> {
    let value =
        Field::new("v", given.data_type().clone(), true).with_metadata(field.metadata().clone());
    let members = members(vec![value], vec![Arc::clone(given)], given.len())?;
    let mut texts = StringBuilder::with_capacity(given.len(), 0);
    for (row, member) in members.iter().enumerate() {
        match given.is_null(row) {
            true => texts.append_null(),
            false => texts.append_value(member.strip_prefix("\"v\":").unwrap_or(member)),
        }
    }
    Ok(Arc::new(texts.finish()))
}

/// The column with strays in their rows, as the texts that the column's type is read from.
fn patched(given: ArrayRef, strays: &[(usize, Box<RawValue>)], ty: &SqlType) -> Result<ArrayRef> {
    if strays.is_empty() {
        return Ok(given);
    }
    let mut by_row: HashMap<usize, &str> = HashMap::with_capacity(strays.len());
    by_row.extend(strays.iter().map(|(row, value)| (*row, value.get())));
    // doubles come back from their text as they were
    let doubles = given.data_type().is_floating() && *ty == SqlType::Float8;
    let texts = match doubles {
        true => spelled(&given)?,
        false => cast(&given, &DataType::Utf8)?,
    };
    let texts = texts.as_string::<i32>();
    let as_json = matches!(ty, SqlType::Json | SqlType::Jsonb);
    let mut all = StringBuilder::with_capacity(texts.len(), 0);
    for row in 0..texts.len() {
        match by_row.get(&row) {
            Some(&"null") => all.append_null(),
            Some(json) if as_json => all.append_value(json),
            Some(json) => all.append_value(text_of(json)?),
            None if texts.is_null(row) => all.append_null(),
            None => all.append_value(texts.value(row)),
        }
    }
    Ok(Arc::new(all.finish()))
}

fn spelled(doubles: &ArrayRef) -> Result<ArrayRef> {
    let doubles = cast(doubles, &DataType::Float64)?;
    let mut texts = StringBuilder::with_capacity(doubles.len(), 0);
    for value in doubles.as_primitive::<Float64Type>() {
        texts.append_option(value.map(|v| v.to_string()));
    }
    Ok(Arc::new(texts.finish()))
}

/// What a JSON value is as a text: what a string spells, any other value as written.
fn text_of(json: &str) -> Result<Cow<'_, str>> {
    if !json.starts_with('"') {
        return Ok(Cow::Borrowed(json));
    }
    let text = serde_json::from_str::<String>(json)
        .map_err(|e| Error::Internal(format!("a JSON string that is none: {e}")))?;
    match text.contains('\0') {
        false => Ok(Cow::Owned(text)),
        true => Err(Error::refused(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "a text cannot hold the character NUL",
        )),
    }
}
