//! What rows need of their table's columns: places for new keys, wider types.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use catalog::{Column, Relation, SqlType};

use super::super::reshape::{MAX_COLUMNS, is_exact};
use super::super::write::generated_always;
use super::infer::Kind;
use super::part::Part;
use super::{column, fit};
use crate::error::{Error, Result, SqlState};
use crate::types::{self, LSN, RESCUED};

/// PostgreSQL's longest name.
const LONGEST_NAME: usize = 63;
/// What the names of Delta's columns cannot hold.
const FORBIDDEN: [char; 8] = [' ', ',', ';', '{', '}', '(', ')', '='];

/// What values need.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Need {
    /// A place for JSON values like these.
    Json(Kind),
    /// A place for an Arrow column of that type.
    Typed(SqlType),
}

/// What is needed under each name.
pub(super) type Needs = BTreeMap<String, Need>;

/// What all of the rows need.
pub(super) fn of(table: &Relation, parts: &[Part], zone: &str) -> Result<Needs> {
    let mut needs = Needs::new();
    for (key, values) in parts.iter().flat_map(|part| &part.strays) {
        for (_, value) in values {
            if let Some(kind) = Kind::of(value.get()) {
                add(&mut needs, key, Need::Json(kind));
            }
        }
    }
    for Part { batch, .. } in parts {
        for (field, given) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if field.name() == RESCUED {
                continue;
            }
            match column(table, field.name()) {
                None if given.null_count() < given.len() => {
                    add(&mut needs, field.name(), Need::Typed(stored_type(field)));
                }
                // by far the usual case, and nothing to look at
                Some(known) if given.data_type() == &types::arrow_type(&known.sql_type) => {}
                Some(known) if known.generated.is_none() && fit(given, known, zone).is_err() => {
                    add(&mut needs, field.name(), typed(field, given)?);
                }
                _ => {}
            }
        }
    }
    Ok(needs)
}

fn add(needs: &mut Needs, key: &str, more: Need) {
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
pub(super) fn typed(field: &Field, given: &ArrayRef) -> Result<Need> {
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

/// The type that a column must have for what is needed of it; its own when no wider one would do.
pub(super) fn wanted(column: &Column, need: &Need, as_text: bool) -> SqlType {
    let wanted = kind(need).widened(&column.sql_type);
    let rounds = wanted == SqlType::Float8 && column.sql_type == SqlType::Int8;
    match rounds && as_text {
        true => SqlType::Text,
        false => wanted,
    }
}

/// A column that must be other than it is.
#[derive(Debug)]
pub(super) struct Changed {
    /// Where it stands, if it is there.
    pub(super) at: Option<usize>,
    pub(super) name: String,
    pub(super) sql_type: SqlType,
}

/// The columns that must change for what is needed. With `as_text` whole numbers among others become
/// texts: a double would round some that are stored.
///
/// # Errors
/// 42703 for a name that no column can have, 428C9 for values for a generated column.
pub(super) fn changed(table: &Relation, needs: &Needs, as_text: bool) -> Result<Vec<Changed>> {
    let mut all = Vec::new();
    for (name, need) in needs {
        let at = table.columns.iter().position(|c| &c.name == name);
        let at = at.filter(|_| name != RESCUED);
        let sql_type = match at.and_then(|at| table.columns.get(at)) {
            Some(column) if column.generated.is_some() => return Err(generated_always(name)),
            Some(column) => match wanted(column, need, as_text) {
                same if same == column.sql_type => continue,
                wider => wider,
            },
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

/// The table with these columns.
pub(super) fn grown(mut table: Relation, changes: Vec<Changed>) -> Relation {
    for change in changes {
        match change.at.and_then(|at| table.columns.get_mut(at)) {
            Some(column) => column.sql_type = change.sql_type,
            None => table.columns.push(Column {
                name: change.name,
                sql_type: change.sql_type,
                nullable: true,
                default: None,
                generated: None,
                comment: None,
                since: None,
            }),
        }
    }
    table
}

/// Refuses keys that cannot be names of columns, here or for other readers of the table.
fn check_name(table: &Relation, name: &str) -> Result<()> {
    let lower = name.to_lowercase();
    let why = if let Some(why) = never_a_name(name) {
        why
    } else if table.columns.iter().any(|c| c.name.to_lowercase() == lower) {
        OTHER_CASE
    } else if table.columns.len() >= MAX_COLUMNS {
        NO_MORE
    } else {
        return Ok(());
    };
    Err(no_column(table, name, why))
}

/// Why a name is refused whose lower case is another's.
pub(super) const OTHER_CASE: &str = "a column has the name in other case";
/// Why a name is refused when there are [`MAX_COLUMNS`].
pub(super) const NO_MORE: &str = "the table has as many columns as it may have";

/// Why a key cannot be the name of a column in any table.
pub(super) fn never_a_name(name: &str) -> Option<&'static str> {
    let bad = |c: char| c.is_control() || FORBIDDEN.contains(&c);
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > LONGEST_NAME {
        Some("it is longer than 63 bytes")
    } else if name.contains(bad) {
        Some("it has blanks, control characters or one of , ; { } ( ) =")
    } else if name == LSN || name == RESCUED {
        Some("the name is reserved")
    } else {
        None
    }
}

/// The refusal of a key that cannot become a column.
pub(super) fn no_column(table: &Relation, name: &str, why: &str) -> Error {
    let shown: String = name.chars().take(LONGEST_NAME).collect();
    Error::refused(
        SqlState::UNDEFINED_COLUMN,
        format!(
            "key \"{}\" cannot become a column of \"{}\"",
            shown.escape_debug(),
            table.name
        ),
    )
    .with_detail(why)
    .with_hint("schema_evolution = 'rescue' keeps every key")
}
