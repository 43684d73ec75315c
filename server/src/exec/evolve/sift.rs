//! `schema_evolution = 'add'`: which rows a table cannot get columns for.
//!
//! Good rows alone decide what becomes of a table. A row is bad when
//!
//! 1. a value of it needs a wider column, and that column cannot become wider;
//! 2. the table's constraints refuse it;
//! 3. a key of it can be no column: by its name, because it differs only in case from a column, or from a
//!    new key of a good row before it, or because there would be too many columns.
//!
//! Each row is looked at a fixed number of times, those that do not fit an Arrow column by halving: a
//! batch of nothing but bad rows costs a small multiple of a good one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::Array;
use catalog::{Column, Relation, Snapshot};

use super::super::alter_table::widenable;
use super::super::reshape::MAX_COLUMNS;
use super::super::write::{Intake, generated_always};
use super::infer::Kind;
use super::needs::{self, Changed, Need, Needs};
use super::part::Part;
use super::place::placed;
use super::{Bad, column, fit, misfits};
use crate::engine::scope::Scope;
use crate::error::{Error, Report, Result, SqlState};
use crate::types::{self, RESCUED};

/// What was found out while a table was to be changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    /// Whole numbers that a double would round are stored: columns for both become texts.
    pub(super) as_text: bool,
    /// No column can become wider, for this reason.
    pub(super) frozen: Option<Report>,
}

/// Rows told apart.
#[derive(Debug)]
pub(super) struct Sifted {
    /// The good rows of each part.
    pub(super) good: Vec<Part>,
    /// The bad rows of each part.
    pub(super) bad: Vec<Bad>,
    /// What the good rows need.
    pub(super) needs: Needs,
    /// The table must change for them.
    pub(super) changes: bool,
}

/// Tells the rows apart.
///
/// # Errors
/// What is no row's fault: Arrow columns whose names can be no columns.
pub(super) fn sift(
    scope: &Arc<Scope>,
    table: &Relation,
    parts: &[Part],
    limits: &Limits,
) -> Result<Sifted> {
    let zone = &scope.caller.time_zone;
    let mut bad: Vec<Bad> = parts.iter().map(|part| part.broken.clone()).collect();
    let mut wider = Wider {
        catalog: &scope.catalog,
        table,
        limits,
        verdicts: BTreeMap::new(),
    };
    for (part, bad) in parts.iter().zip(&mut bad) {
        unplaced(part, zone, &mut wider, bad)?;
    }
    let sifted = by_keys(table, parts, bad.clone(), zone, limits)?;
    if !sifted.changes {
        // the rows are checked when they are stored: that can change nothing of the above
        return Ok(sifted);
    }
    match constrained(scope, table, parts, &mut bad, limits)? {
        true => by_keys(table, parts, bad, zone, limits),
        false => Ok(sifted),
    }
}

/// Columns that may or may not become wider.
struct Wider<'a> {
    catalog: &'a Snapshot,
    table: &'a Relation,
    limits: &'a Limits,
    /// By name, once asked. It is one for all types that values ask for.
    verdicts: BTreeMap<&'a str, Result<(), Report>>,
}

impl<'a> Wider<'a> {
    /// Why a column cannot become what is needed; nothing when it can, or need not.
    fn refusal(&mut self, column: &'a Column, need: &Need) -> Option<Report> {
        let wanted = needs::wanted(column, need, self.limits.as_text);
        if wanted == column.sql_type {
            return None;
        }
        if let Some(why) = &self.limits.frozen {
            return Some(why.clone());
        }
        let ask = || {
            widenable(self.catalog, self.table, column, &wanted)
                .map_err(|e| misfit(column, &e).report())
        };
        let verdict = self.verdicts.entry(&column.name).or_insert_with(ask);
        verdict.clone().err()
    }
}

/// The refusal of a value whose column cannot become wider.
pub(super) fn misfit(column: &Column, why: &Error) -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!(
            "a value does not fit column \"{}\" of type {}",
            column.name, column.sql_type
        ),
    )
    .with_detail(format!("its type cannot become wider: {why}"))
}

/// Finds rows with values for columns that cannot take them.
fn unplaced(part: &Part, zone: &str, wider: &mut Wider<'_>, bad: &mut Bad) -> Result<()> {
    let table = wider.table;
    let columns = part.batch.columns().iter();
    for (field, given) in part.batch.schema_ref().fields().iter().zip(columns) {
        let fits = |c: &Column| {
            given.data_type() == &types::arrow_type(&c.sql_type) || fit(given, c, zone).is_ok()
        };
        let known = column(table, field.name()).filter(|c| c.generated.is_none());
        let Some(known) = known.filter(|c| !fits(c)) else {
            continue;
        };
        if let Some(why) = wider.refusal(known, &needs::typed(field, given)?) {
            for (row, _) in misfits(given, known, zone) {
                bad.entry(row).or_insert_with(|| why.clone());
            }
        }
    }
    for (key, values) in &part.strays {
        let Some(known) = column(table, key) else {
            continue;
        };
        for (row, value) in values {
            let Some(kind) = Kind::of(value.get()) else {
                continue;
            };
            let why = match known.generated {
                Some(_) => Some(generated_always(key).report()),
                None => wider.refusal(known, &Need::Json(kind)),
            };
            if let Some(why) = why {
                bad.entry(*row).or_insert(why);
            }
        }
    }
    Ok(())
}

/// Finds rows that the table's constraints refuse, its columns being as wide as they need; true when
/// there are some. New columns make no difference: no constraint is about them.
fn constrained(
    scope: &Arc<Scope>,
    table: &Relation,
    parts: &[Part],
    bad: &mut [Bad],
    limits: &Limits,
) -> Result<bool> {
    let known = |(part, bad): (&Part, &Bad)| part.without(bad)?.known(table);
    let known: Vec<Part> = parts
        .iter()
        .zip(&*bad)
        .map(known)
        .collect::<Result<Vec<_>>>()?;
    let needs = needs::of(table, &known, &scope.caller.time_zone)?;
    let changes = needs::changed(table, &needs, limits.as_text)?;
    let table = needs::grown(table.clone(), changes);
    let intake = Intake::new(scope, &table)?;
    let mut found = false;
    for (part, bad) in known.into_iter().zip(bad) {
        let rows = part.rows.clone();
        let sorted = intake.sort(&placed(scope, &table, part)?)?;
        for (row, e) in sorted.bad {
            let row = rows
                .as_ref()
                .and_then(|r| r.get(row).copied())
                .unwrap_or(row);
            bad.insert(row, e.report());
            found = true;
        }
    }
    Ok(found)
}

/// Finds rows whose keys can be no columns, and tells what the others need.
fn by_keys(
    table: &Relation,
    parts: &[Part],
    mut bad: Vec<Bad>,
    zone: &str,
    limits: &Limits,
) -> Result<Sifted> {
    let mut names = Names::of(table);
    for (part, bad) in parts.iter().zip(&bad) {
        let fields = part.batch.schema_ref().fields().iter();
        for (field, given) in fields.zip(part.batch.columns()) {
            let brings = |row| !bad.contains_key(&row) && given.is_valid(row);
            if field.name() != RESCUED
                && column(table, field.name()).is_none()
                && (0..given.len()).any(brings)
            {
                names.add(field.name());
            }
        }
    }
    for (part, bad) in parts.iter().zip(&mut bad) {
        let mut rows: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (key, values) in &part.strays {
            if column(table, key).is_some() {
                continue;
            }
            for (row, value) in values {
                if value.get() != "null" && !bad.contains_key(row) {
                    rows.entry(*row).or_default().push(key);
                }
            }
        }
        for (row, keys) in rows {
            if let Err(e) = names.admit(&keys) {
                bad.insert(row, e.report());
            }
        }
    }
    let good = parts.iter().zip(&bad).map(|(part, bad)| part.without(bad));
    let good = good.collect::<Result<Vec<_>>>()?;
    let needs = needs::of(table, &good, zone)?;
    let changes: Vec<Changed> = needs::changed(table, &needs, limits.as_text)?;
    Ok(Sifted {
        good,
        bad,
        needs,
        changes: !changes.is_empty(),
    })
}

/// The names of a table's columns and of those that it is to get.
struct Names<'a> {
    table: &'a Relation,
    as_written: HashSet<String>,
    lower: HashSet<String>,
    /// Keys that can never be names.
    never: HashMap<String, &'static str>,
}

impl<'a> Names<'a> {
    fn of(table: &'a Relation) -> Self {
        let mut names = Self {
            table,
            as_written: HashSet::new(),
            lower: HashSet::new(),
            never: HashMap::new(),
        };
        for column in &table.columns {
            names.add(&column.name);
        }
        names
    }

    fn add(&mut self, name: &str) {
        self.as_written.insert(name.to_owned());
        self.lower.insert(name.to_lowercase());
    }

    /// Takes the keys of a row in, all or none of them.
    fn admit(&mut self, keys: &[&str]) -> Result<()> {
        let mut new = Vec::new();
        for key in keys {
            let why = match self.why_not(key) {
                Ok(true) => {
                    self.add(key);
                    new.push(*key);
                    continue;
                }
                Ok(false) => continue,
                Err(why) => why,
            };
            for name in new {
                self.as_written.remove(name);
                self.lower.remove(&name.to_lowercase());
            }
            return Err(needs::no_column(self.table, key, why));
        }
        Ok(())
    }

    /// True for a key that is new, or why it cannot be a column.
    fn why_not(&mut self, key: &str) -> Result<bool, &'static str> {
        if key != RESCUED && self.as_written.contains(key) {
            return Ok(false);
        }
        if let Some(why) = self.never.get(key) {
            return Err(why);
        }
        if let Some(why) = needs::never_a_name(key) {
            self.never.insert(key.to_owned(), why);
            return Err(why);
        }
        if self.lower.contains(&key.to_lowercase()) {
            return Err(needs::OTHER_CASE);
        }
        match self.as_written.len() < MAX_COLUMNS {
            true => Ok(true),
            false => Err(needs::NO_MORE),
        }
    }
}
