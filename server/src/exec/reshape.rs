//! How a table's columns change: one commit of the Delta log, then one of the catalog.
//!
//! The log comes first: what it has and the catalog does not is taken over at the next start or change
//! (`engine::adopt`), while a column that only the catalog knew would lie about what is stored. Rows that
//! are there are written anew only when the change gives them a value: a default, a generation
//! expression, another type. Any Delta reader then sees what weir shows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{Change, Column, Oid, Relation, RelationKind, Snapshot, SqlType};
use datafusion::catalog::TableProvider;
use datafusion::common::DFSchema;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::physical_plan::{PhysicalExpr, execute_stream};
use datafusion::sql::sqlparser::ast::ExprWithAlias;
use futures::StreamExt;

use super::relations;
use super::rewrite::remove;
use super::write::{Intake, evaluate, physical_expr};
use crate::engine::adopt;
use crate::engine::scan::WeirTable;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::lake::crash::crash_point;
use crate::lake::{self, LakeSnapshot};
use crate::stream::head::{Lsn, TableHead, Upkeep};
use crate::types::{self, DEFAULT_KEY, GENERATED_KEY, LSN, MISSING_KEY};

/// The most columns a table may have: what brings new columns by itself must come to an end.
pub(super) const MAX_COLUMNS: usize = 1000;

/// Changes a table's columns (and what else `make` changes of it) as `make` says over the newest
/// catalog; it gives `None` when there is nothing to do. Runs to its end also when the caller is
/// cancelled. With `most_bytes` a table that stores more is not written anew.
///
/// # Errors
/// What `make` reports; 54011 for too many columns, 23502 for rows that have NULL in a column that takes
/// none, 22003 for numbers that the new type would round, 55000 for a table over `most_bytes`.
pub(super) async fn reshape<F>(
    scope: &Arc<Scope>,
    oid: Oid,
    most_bytes: Option<u64>,
    make: F,
) -> Result<Option<Relation>>
where
    F: FnOnce(&Snapshot, &Relation) -> Result<Option<Relation>> + Send + 'static,
{
    let scope = Arc::clone(scope);
    relations::to_its_end("alter table", async move {
        let engine = &scope.engine;
        let _ddl = engine.ddl().await;
        adopt::one(engine, oid).await?;
        let catalog = engine.catalog();
        let Some(before) = catalog.relation_by_oid(oid) else {
            return Err(Error::undefined_table(&oid.to_string()));
        };
        let Some(mut after) = make(&catalog, before)? else {
            return Ok(None);
        };
        check(&after)?;
        let known = before.columns.len();
        if after.columns.len() > known {
            let now = engine.allocate_oid().await?;
            let added = after.columns.iter_mut().skip(known);
            added.for_each(|c| c.since = Some(now));
        }
        let stored = |r: &Relation| types::schema(&r.columns);
        if stored(before) != stored(&after) {
            Box::pin(store(&scope, before, &after, most_bytes)).await?;
            crash_point("alter-after-commit-before-catalog");
        }
        engine
            .commit(vec![Change::PutRelation(after.clone())])
            .await?;
        Ok(Some(after))
    })
    .await
}

/// What every table holds to, whoever made the columns.
fn check(table: &Relation) -> Result<()> {
    relations::check_names(&table.columns)?;
    relations::check_reserved(&table.columns)?;
    let mut seen = HashMap::new();
    for column in &table.columns {
        if let Some(other) = seen.insert(column.name.to_lowercase(), &column.name) {
            return Err(Error::refused(
                SqlState::DUPLICATE_COLUMN,
                format!(
                    "columns \"{other}\" and \"{}\" differ in case only",
                    column.name
                ),
            )
            .with_detail("Delta tables do not tell such names apart"));
        }
    }
    match table.columns.len() > MAX_COLUMNS {
        true => Err(Error::refused(
            SqlState("54011"),
            format!("tables can have at most {MAX_COLUMNS} columns"),
        )),
        false => Ok(()),
    }
}

async fn store(
    scope: &Arc<Scope>,
    before: &Relation,
    after: &Relation,
    most_bytes: Option<u64>,
) -> Result<()> {
    let state = scope.state()?;
    let change = Reshaping::new(scope, &state, before, after)?;
    let change = &change;
    scope
        .engine
        .stream
        .alter(before.oid, change.still, async move |lake| {
            let schema = change.stored(&lake.schema);
            let lake = lake::admit(lake, &schema).await?;
            let mut commit = lake::Commit::default();
            if change.rewrites && !lake.files.is_empty() {
                within(before, &lake, most_bytes)?;
                let rows = scan(&state, before, &lake, None).await?;
                let rows = rows.map(|batch| change.apply(&batch?, &schema));
                commit.adds = lake::write_files_as(&lake, &schema, rows).await?;
                commit.removes = lake.files.iter().map(|f| remove(&lake, f)).collect();
            } else {
                change.check_nulls(&state, &lake).await?;
            }
            crash_point("alter-before-commit");
            let app = format!("weir/{}/schema", before.oid);
            let done = lake.txn_version(&app).await?.unwrap_or(0);
            commit.txn = Some((app, done + 1));
            commit.schema = Some(schema);
            lake::commit(&lake, commit).await.map(Some)
        })
        .await
}

/// Refuses to write a table anew that is larger than the caller wants to wait for.
fn within(table: &Relation, lake: &LakeSnapshot, most_bytes: Option<u64>) -> Result<()> {
    let bytes: u64 = lake.files.iter().map(|f| f.size).sum();
    match most_bytes.filter(|most| bytes > *most) {
        None => Ok(()),
        Some(_) => Err(Error::refused(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "table \"{}\" is too large to change the type of a column by itself",
                table.name
            ),
        )
        .with_hint("use ALTER TABLE … ALTER COLUMN … TYPE")),
    }
}

/// A table's stored rows, `_lsn` in front where it has one; all columns or one.
async fn scan(
    state: &SessionState,
    table: &Relation,
    lake: &LakeSnapshot,
    only: Option<&str>,
) -> Result<SendableRecordBatchStream> {
    let visible = lake.schema.fields().iter().filter(|f| f.name() != LSN);
    let visible = visible.filter(|f| only.is_none_or(|name| f.name() == name));
    let head = TableHead {
        oid: table.oid,
        streaming: table.kind == RelationKind::StreamingTable,
        schema: Arc::new(Schema::new(visible.cloned().collect::<Vec<_>>())),
        lake: Arc::new(lake.clone()),
        flushed: Lsn::default(),
        changes: 0,
        upkeep: Upkeep::default(),
        tail: Vec::new(),
    };
    let table = WeirTable::new(Arc::new(head), only.is_none());
    let plan = table.scan(state, None, &[], None).await?;
    Ok(execute_stream(plan, state.task_ctx())?)
}

/// What happens to rows that are there.
struct Reshaping<'a> {
    after: &'a Relation,
    intake: Intake,
    /// Columns of another type, with the expression that makes it.
    widened: HashMap<&'a str, (Arc<dyn PhysicalExpr>, &'a SqlType)>,
    /// Stored forms of new columns.
    added: HashMap<&'a str, FieldRef>,
    /// Columns that take NULL no more.
    tightened: Vec<&'a str>,
    /// Rows that are there get values.
    rewrites: bool,
    /// Rows made before do not fit what comes after.
    still: bool,
}

impl<'a> Reshaping<'a> {
    fn new(
        scope: &Arc<Scope>,
        state: &SessionState,
        before: &'a Relation,
        after: &'a Relation,
    ) -> Result<Self> {
        let mut change = Self {
            after,
            intake: Intake::new(scope, after)?,
            widened: HashMap::new(),
            added: HashMap::new(),
            tightened: Vec::new(),
            rewrites: false,
            still: false,
        };
        let old = DFSchema::try_from(types::schema(&before.columns).as_ref().clone())?;
        for (at, column) in after.columns.iter().enumerate() {
            let name = column.name.as_str();
            let Some(was) = before.columns.get(at) else {
                let field = change.added(state, column, at)?;
                change.added.insert(name, Arc::new(field));
                continue;
            };
            if was.sql_type != column.sql_type {
                let quoted = name.replace('"', "\"\"");
                let text = format!("CAST(\"{quoted}\" AS {})", column.sql_type);
                let expr = physical_expr(state, crate::dialect::parse_expr(&text)?, &old)?;
                change.widened.insert(name, (expr, &was.sql_type));
                change.rewrites = true;
                change.still = true;
            }
            if was.nullable && !column.nullable {
                change.tightened.push(name);
                change.still = true;
            }
        }
        Ok(change)
    }

    /// The stored form of a new column: it says what rows of before have in it.
    fn added(&mut self, state: &SessionState, column: &'a Column, at: usize) -> Result<Field> {
        let mut field = types::field(&column.name, &column.sql_type, column.nullable);
        let mut metadata = field.metadata().clone();
        let mut valued = true;
        if let Some(text) = &column.generated {
            metadata.insert(GENERATED_KEY.to_owned(), text.clone());
            self.rewrites = true;
            self.still = true;
        } else if let Some(text) = &column.default {
            let value = self.intake.default_of(at)?;
            valued = value.as_ref().is_some_and(|v| v.null_count() == 0);
            if valued {
                metadata.insert(DEFAULT_KEY.to_owned(), text.clone());
                self.rewrites = true;
                match value.filter(|_| !volatile(state, text).unwrap_or(true)) {
                    Some(value) if spelled(&value).is_some() => {
                        let spelled = spelled(&value).unwrap_or_default();
                        metadata.insert(MISSING_KEY.to_owned(), spelled);
                    }
                    _ => self.still = true,
                }
            }
        } else {
            valued = false;
        }
        if !column.nullable && !valued {
            self.tightened.push(&column.name);
            self.still = true;
        }
        field.set_metadata(metadata);
        Ok(field)
    }

    /// The columns to be stored.
    fn stored(&self, before: &SchemaRef) -> SchemaRef {
        let lsn = before.fields().iter().filter(|f| f.name() == LSN).cloned();
        let columns = self.after.columns.iter().map(|column| {
            let name = column.name.as_str();
            if let Some(field) = self.added.get(name) {
                return Arc::clone(field);
            }
            match before.field_with_name(name) {
                Ok(field) if !self.widened.contains_key(name) => {
                    Arc::new(field.clone().with_nullable(column.nullable))
                }
                _ => Arc::new(types::field(name, &column.sql_type, column.nullable)),
            }
        });
        Arc::new(Schema::new(lsn.chain(columns).collect::<Vec<FieldRef>>()))
    }

    /// Rows of before as rows of after.
    fn apply(&self, batch: &RecordBatch, stored: &SchemaRef) -> Result<RecordBatch> {
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut given: Vec<ArrayRef> = Vec::new();
        let visible = visible(batch)?;
        let known = visible.schema_ref().fields().iter().zip(visible.columns());
        for (field, column) in known.filter(|(f, _)| self.intake.takes(f.name())) {
            let column = match self.widened.get(field.name().as_str()) {
                Some((expr, was)) => self.widen(field.name(), column, expr, was, &visible)?,
                None => Arc::clone(column),
            };
            let ty = column.data_type().clone();
            fields.push(Arc::new(Field::new(field.name(), ty, true)));
            given.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let given =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), given, &options)?;
        let rows = self.intake.apply(&given)?;
        let lsn = batch.column_by_name(LSN).cloned();
        let columns = lsn.into_iter().chain(rows.columns().iter().cloned());
        let columns = columns.zip(stored.fields());
        let columns = columns.map(|(column, field)| cast(&column, field.data_type()));
        Ok(RecordBatch::try_new(
            Arc::clone(stored),
            columns.collect::<Result<Vec<_>, _>>()?,
        )?)
    }

    /// A column in its new type. A double holds whole numbers up to a size: others are refused.
    fn widen(
        &self,
        name: &str,
        column: &ArrayRef,
        expr: &Arc<dyn PhysicalExpr>,
        was: &SqlType,
        rows: &RecordBatch,
    ) -> Result<ArrayRef> {
        let wide = evaluate(expr, rows)?;
        let rounded = *was == SqlType::Int8
            && matches!(wide.data_type(), DataType::Float64)
            && column
                .as_primitive::<Int64Type>()
                .iter()
                .zip(wide.as_primitive::<Float64Type>())
                .any(|(whole, double)| !whole.is_none_or(|n| is_exact(n, double)));
        match rounded {
            false => Ok(wide),
            true => Err(Error::refused(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("column \"{name}\" has numbers that double precision would round"),
            )
            .with_hint("change its type to text")),
        }
    }

    /// Refuses NULL where it is not taken any more. Rows written anew are checked on their way.
    async fn check_nulls(&self, state: &SessionState, lake: &LakeSnapshot) -> Result<()> {
        for name in &self.tightened {
            let nulls = match lake.schema.field_with_name(name).is_ok() {
                true => {
                    let mut rows = scan(state, self.after, lake, Some(name)).await?;
                    let mut nulls = 0;
                    while let Some(batch) = rows.next().await {
                        nulls += batch?.column(0).null_count();
                    }
                    nulls
                }
                false => lake.rows().unwrap_or(usize::MAX),
            };
            if nulls > 0 {
                return Err(Error::refused(
                    SqlState::NOT_NULL_VIOLATION,
                    format!(
                        "column \"{name}\" of relation \"{}\" contains null values",
                        self.after.name
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// True when a double is the whole number itself.
pub(super) fn is_exact(whole: i64, double: Option<f64>) -> bool {
    // up to this every whole number is one; above, comparing as i128 does not round
    const SURE: u64 = 1 << 53;
    whole.unsigned_abs() <= SURE || double.is_some_and(|d| d as i128 == i128::from(whole))
}

fn visible(batch: &RecordBatch) -> Result<RecordBatch> {
    let fields = batch.schema_ref().fields();
    let keep: Vec<usize> = (0..fields.len())
        .filter(|at| fields[*at].name() != LSN)
        .collect();
    Ok(batch.project(&keep)?)
}

/// True when each evaluation gives another value.
fn volatile(state: &SessionState, text: &str) -> Result<bool> {
    let expr = ExprWithAlias {
        expr: crate::dialect::parse_expr(text)?,
        alias: None,
    };
    let expr = state.create_logical_expr_from_sql_expr(expr, &DFSchema::empty())?;
    Ok(expr.is_volatile())
}

/// A value as text that gives the value again; `None` where there is no such text.
fn spelled(value: &ArrayRef) -> Option<String> {
    let text = cast(value, &DataType::Utf8).ok()?;
    let again = cast(&text, value.data_type()).ok()?;
    let texts: &StringArray = text.as_string_opt()?;
    (&again == value && texts.len() == 1).then(|| texts.value(0).to_owned())
}
