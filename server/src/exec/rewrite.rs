//! Copy on write: UPDATE, DELETE, MERGE and TRUNCATE replace a table's files by new ones in one commit.
//!
//! The change runs alone on its table over the newest stored state, with the tail flushed before.
//! Its sources are read at the statement's cut. Rows keep their `_lsn`.

pub(super) mod once;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::ArrayRef;
use arrow::datatypes::Schema;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{Oid, Relation, RelationKind};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, TableAlias,
    TableFactor, TableWithJoins,
};
use deltalake::kernel::Remove;
use futures::StreamExt;

use super::write::Intake;
use super::{Run, query, rows};
use crate::dialect::refuse::clause;
use crate::dialect::words::fold;
use crate::engine::scan::WeirTable;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::lake;
use crate::session::Session;
use crate::session::held::HeldRewrite;
use crate::stream::{
    self,
    head::{DbHead, TableHead},
};
use crate::types::{self, LSN};
use crate::views::refresh::By;
use crate::views::{self, Kept, OnSourceChange};

/// What rows of the new state are: changed and new ones pass the table's constraints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    /// As they were.
    Kept,
    /// Rows of before with new values.
    Updated,
    /// Not there before.
    Inserted,
}

/// How many rows a change concerned.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    pub(super) updated: u64,
    pub(super) inserted: u64,
    pub(super) deleted: u64,
}

impl Counted {
    fn is_nothing(self) -> bool {
        self.updated + self.inserted + self.deleted == 0
    }
}

/// One set of rows of the new state.
#[derive(Debug)]
pub(super) struct Part {
    /// Gives the rows: `_lsn` first where the table has it, then the table's columns.
    pub query: Query,
    /// What the rows are.
    pub(super) kind: RowKind,
}

/// What the change is made of, once the table stands still.
pub(super) struct Change {
    /// The parts of the new state.
    pub parts: Vec<Part>,
    /// Queries that must give 0, with the refusal when they do not.
    pub must_be_zero: Vec<(Query, Error)>,
    /// Sources beside the table, by the name the queries use.
    pub sources: once::Sources,
    /// How it is refused that a row of before becomes several, for a change that is to keep their number.
    pub one_to_one: Option<fn() -> Error>,
}

/// Materialized views that have counted a table's rows.
#[derive(Debug, Default)]
pub(super) struct Counting {
    /// Those that keep what they have counted.
    ignoring: Vec<Oid>,
    /// Those that are made anew after the change.
    following: Vec<(Kept, String)>,
}

/// What a change of a table's rows means for its materialized views.
///
/// # Errors
/// 55000 when one of them does not allow it.
pub(super) fn check_views(scope: &Scope, relation: &Relation) -> Result<Counting> {
    let mut counting = Counting::default();
    if relation.kind != RelationKind::StreamingTable {
        // views over ordinary tables go by the table's version
        return Ok(counting);
    }
    for view in &scope.catalog.relations {
        let Some(kept) = Kept::of(view)?.filter(|k| k.sources.contains(&relation.oid)) else {
            continue;
        };
        match kept.on_source_change() {
            OnSourceChange::Ignore => counting.ignoring.push(view.oid),
            OnSourceChange::Recompute => {
                let view = (kept, view.name.clone());
                check_remade(&scope.head, &view)?;
                counting.following.push(view);
            }
            OnSourceChange::Fail => {
                return Err(Error::refused(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("cannot change rows of \"{}\"", relation.name),
                )
                .with_detail(format!(
                    "materialized view \"{}\" has counted them (on_source_change = 'fail')",
                    view.name
                ))
                .with_hint(format!(
                    "ALTER MATERIALIZED VIEW \"{}\" SET (on_source_change = 'recompute'), or 'ignore'",
                    view.name
                )));
            }
        }
    }
    Ok(counting)
}

/// Refuses a change after which a view would have to be made from rows that are not there any more.
fn check_remade(head: &DbHead, (kept, name): &(Kept, String)) -> Result<()> {
    let state = head.views.get(&kept.oid);
    match state.and_then(|state| state.holds_dropped_rows_of(&kept.sources, head)) {
        None => Ok(()),
        Some(_) => Err(views::refresh::cannot_be_made_anew(name)),
    }
}

/// What comes before a change of a table that stands still: views that keep what they have counted store
/// it, and none that follows has to be made from rows that retention dropped since the statement began.
pub(super) async fn before_change(scope: &Scope, views: &Counting) -> Result<()> {
    let head = scope.engine.stream.head();
    for view in &views.following {
        check_remade(&head, view)?;
    }
    for view in &views.ignoring {
        Box::pin(scope.engine.refresher.refresh(*view, By::Statement)).await?;
    }
    Ok(())
}

/// What comes after it.
pub(super) fn after_change(scope: &Scope, views: &Counting) {
    if !views.following.is_empty() {
        // their reads are exact meanwhile: they ask the table itself
        scope.engine.refresher.nudge();
    }
}

/// Makes the change; the numbers of rows it concerned. An ordinary table is changed when the transaction
/// block ends, if there is one, any other at once.
pub(super) async fn apply(
    run: &Run,
    relation: &Relation,
    change: Change,
    views: Counting,
    command: &'static str,
) -> Result<Counted> {
    let session = run.session()?;
    if relation.kind == RelationKind::Table && session.with_transaction(|t| t.is_open()) {
        return hold(run, &session, relation, change).await;
    }
    Box::pin(session.commit_held()).await?;
    let counted = commit(run, relation, change, views).await?;
    session.with_transaction(|t| t.note_write(command));
    Ok(counted)
}

/// Makes the change for the block alone: in files that no commit names yet, over what the block reads.
async fn hold(
    run: &Run,
    session: &Session,
    relation: &Relation,
    change: Change,
) -> Result<Counted> {
    let Some(head) = run.scope.head.tables.get(&relation.oid) else {
        return Err(Error::undefined_table(&relation.name));
    };
    let writing = run.scope.engine.stream.writing();
    let lake = &head.lake;
    let (adds, counted) = rewritten(run, relation, change, TableHead::clone(head), lake).await?;
    if !counted.is_nothing() {
        let rewrite = HeldRewrite {
            relation: relation.clone(),
            base: lake.version,
            lake: Arc::new(lake.with_files(&adds)?),
            adds,
            writing,
        };
        session.with_transaction(|t| t.held().replace(rewrite));
    }
    Ok(counted)
}

/// Makes the change in one commit, alone with the table.
async fn commit(
    run: &Run,
    relation: &Relation,
    change: Change,
    views: Counting,
) -> Result<Counted> {
    let scope = &run.scope;
    let Some(head) = scope.head.tables.get(&relation.oid).cloned() else {
        return Err(Error::undefined_table(&relation.name));
    };
    let counted = scope
        .engine
        .stream
        .exclusive(relation.oid, async |table| {
            before_change(scope, &views).await?;
            let snapshot = head.lake.with_table(table)?;
            let stored = TableHead {
                lake: Arc::new(snapshot.clone()),
                tail: Vec::new(),
                flushed: head.flushed,
                changes: head.changes,
                upkeep: head.upkeep,
                schema: Arc::clone(&head.schema),
                oid: head.oid,
                streaming: head.streaming,
            };
            let (adds, counted) = rewritten(run, relation, change, stored, &snapshot).await?;
            if counted.is_nothing() {
                return Ok((snapshot.table, counted));
            }
            let after = replace(&snapshot, relation.oid, adds).await?;
            Ok((after.table, counted))
        })
        .await?;
    after_change(scope, &views);
    Ok(counted)
}

/// Puts files in the place of all that a table has, in one commit.
pub(super) async fn replace(
    snapshot: &lake::LakeSnapshot,
    oid: Oid,
    adds: Vec<deltalake::kernel::Add>,
) -> Result<lake::LakeSnapshot> {
    let commit = lake::Commit {
        adds,
        removes: snapshot.files.iter().map(|f| remove(snapshot, f)).collect(),
        txn: Some(stream::next_change(snapshot, oid).await?),
        ..lake::Commit::default()
    };
    lake::commit(snapshot, commit).await
}

/// Writes the files of the new state, made from a table that stands still.
async fn rewritten(
    run: &Run,
    relation: &Relation,
    change: Change,
    stored: TableHead,
    snapshot: &lake::LakeSnapshot,
) -> Result<(Vec<deltalake::kernel::Add>, Counted)> {
    let scope = &run.scope;
    same_columns(relation, snapshot)?;
    let schema_name = scope
        .catalog
        .schema_by_oid(relation.schema)
        .map(|s| s.name.clone())
        .unwrap_or_default();
    let key = (schema_name, relation.name.clone());
    let intake = Intake::new(scope, relation)?;
    let tail: usize = stored.tail.iter().map(|t| t.batch.num_rows()).sum();
    let before = match stored.lake.rows() {
        Some(rows) => (rows + tail) as u64,
        None => return Err(Error::Internal("a table's row count is unknown".to_owned())),
    };
    let mut sources = change.sources;
    sources.insert(key, Arc::new(WeirTable::new(Arc::new(stored), true)));
    let inner = Arc::new(scope.over_sources(sources));
    for (check, refusal) in change.must_be_zero {
        let (state, plan) = query::plan(&inner, check, &run.params).await?;
        if rows::count(run, &state, &plan).await? > 0 {
            return Err(refusal);
        }
    }
    let counts = Counts::default();
    let most = change.one_to_one.map(|refusal| (before, refusal));
    let to = Target {
        scope: &inner,
        snapshot,
        intake: &intake,
        most,
    };
    let adds = Box::pin(write(run, to, change.parts, &counts)).await?;
    let counted = counts.of(before);
    if most.is_some() && counted.deleted > 0 {
        return Err(Error::Internal("an update would lose rows".to_owned()));
    }
    Ok((adds, counted))
}

/// Refuses a change that was understood over other columns than the table has by now.
fn same_columns(relation: &Relation, stored: &lake::LakeSnapshot) -> Result<()> {
    let columns = types::schema(&relation.columns);
    let visible = stored.schema.fields().iter().filter(|f| f.name() != LSN);
    let same = visible
        .map(|f| (f.name(), f.data_type()))
        .eq(columns.fields().iter().map(|f| (f.name(), f.data_type())));
    match same {
        true => Ok(()),
        false => Err(Error::refused(
            SqlState::SERIALIZATION_FAILURE,
            format!(
                "table \"{}\" was altered by another statement",
                relation.name
            ),
        )),
    }
}

#[derive(Debug, Default)]
struct Counts {
    kept: AtomicU64,
    updated: AtomicU64,
    inserted: AtomicU64,
}

impl Counts {
    fn add(&self, kind: RowKind, rows: usize) {
        let count = match kind {
            RowKind::Kept => &self.kept,
            RowKind::Updated => &self.updated,
            RowKind::Inserted => &self.inserted,
        };
        count.fetch_add(rows as u64, Relaxed);
    }

    /// Rows that stand for those of before.
    fn of_before(&self) -> u64 {
        self.kept.load(Relaxed) + self.updated.load(Relaxed)
    }

    fn of(&self, before: u64) -> Counted {
        let updated = self.updated.load(Relaxed);
        Counted {
            updated,
            inserted: self.inserted.load(Relaxed),
            deleted: before.saturating_sub(self.of_before()),
        }
    }
}

/// Where the rows of a change go, and how many may stand for those of before.
#[derive(Clone, Copy)]
struct Target<'a> {
    scope: &'a Arc<Scope>,
    snapshot: &'a lake::LakeSnapshot,
    intake: &'a Intake,
    most: Option<(u64, fn() -> Error)>,
}

async fn write(
    run: &Run,
    to: Target<'_>,
    parts: Vec<Part>,
    counts: &Counts,
) -> Result<Vec<deltalake::kernel::Add>> {
    let mut streams = Vec::new();
    let several = parts.len() > 1;
    for part in parts {
        let (state, plan) = query::plan(to.scope, part.query, &run.params).await?;
        if several {
            refuse_chance(&plan)?;
        }
        let kind = part.kind;
        let stream = rows::start(run, &state, &plan)
            .await?
            .map(move |batch| Ok::<_, Error>((kind, batch?)));
        streams.push(stream);
    }
    let stored = Arc::clone(&to.snapshot.schema);
    let batches = futures::stream::iter(streams).flatten().map(move |next| {
        let (kind, batch) = next?;
        counts.add(kind, batch.num_rows());
        match to.most {
            Some((most, refusal)) if counts.of_before() > most => return Err(refusal()),
            _ => {}
        }
        conform(
            &batch,
            &stored,
            (kind != RowKind::Kept).then_some(to.intake),
        )
    });
    lake::write_files(to.snapshot, Box::pin(batches)).await
}

/// Refuses a condition that two parts may answer differently for one row, which would be in both of them
/// or in none. What columns are made of is asked once per row, and may be anything.
fn refuse_chance(plan: &LogicalPlan) -> Result<()> {
    let mut by_chance = false;
    for input in plan.inputs() {
        by_chance |= once::by_chance(input)?;
    }
    clause(
        by_chance,
        "a condition that may be different at every call, as with random() or a LIMIT for each row",
        "store the values in a column, or the rows in a temporary table, first",
    )
}

/// Rows in the stored schema; changed ones pass the table's constraints first.
fn conform(
    batch: &RecordBatch,
    stored: &Arc<Schema>,
    intake: Option<&Intake>,
) -> Result<RecordBatch> {
    let lsn = stored.fields().first().is_some_and(|f| f.name() == LSN);
    let checked = match intake {
        None => None,
        Some(intake) => {
            let keep: Vec<usize> = (usize::from(lsn)..batch.num_columns())
                .filter(|at| intake.takes(batch.schema_ref().field(*at).name()))
                .collect();
            Some(intake.apply(&batch.project(&keep)?)?)
        }
    };
    let columns = stored
        .fields()
        .iter()
        .map(|field| {
            let from = checked
                .as_ref()
                .and_then(|c| c.column_by_name(field.name()));
            let column = from.or_else(|| batch.column_by_name(field.name()));
            let column = column.ok_or_else(|| {
                Error::Internal(format!("column \"{}\" is missing", field.name()))
            })?;
            Ok(arrow::compute::cast(column, field.data_type())?)
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(stored),
        columns,
        &options,
    )?)
}

pub(super) fn remove(snapshot: &lake::LakeSnapshot, file: &lake::LakeFile) -> Remove {
    let values = snapshot
        .partition_by
        .iter()
        .zip(&file.partition_values)
        .map(|(name, value)| {
            let text = if value.is_null() {
                None
            } else {
                Some(value.to_string())
            };
            (name.clone(), text)
        });
    Remove {
        path: file.path.clone(),
        data_change: true,
        deletion_timestamp: Some(crate::engine::activity::now_micros() / 1000),
        extended_file_metadata: Some(true),
        partition_values: Some(values.collect()),
        size: i64::try_from(file.size).ok(),
        ..Remove::default()
    }
}

/// The table named in a statement with the name its columns go by.
#[derive(Debug)]
pub(super) struct Named {
    /// Its factor, ready for a FROM.
    pub from: TableWithJoins,
    /// What its columns are qualified with.
    pub alias: Ident,
}

/// Understands `t`, `s.t` and `t AS a`.
pub(super) fn named(table: &TableFactor) -> Result<Named> {
    match table {
        TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } => {
            let last = name.0.last().and_then(|p| p.as_ident()).cloned();
            let alias = match alias {
                Some(alias) if alias.columns.is_empty() => alias.name.clone(),
                Some(_) => {
                    return Err(Error::unsupported(
                        "column aliases are not supported here",
                        "name the table only",
                    ));
                }
                None => last.ok_or_else(|| Error::Internal("a table without a name".to_owned()))?,
            };
            Ok(Named {
                from: TableWithJoins {
                    relation: table.clone(),
                    joins: Vec::new(),
                },
                alias,
            })
        }
        _ => Err(Error::unsupported(
            "this form of target is not supported",
            "name a table",
        )),
    }
}

/// A table of sources under an alias.
pub(super) fn source_factor(name: &str, alias: Ident) -> TableWithJoins {
    let relation = TableFactor::Table {
        name: ObjectName::from(vec![Ident::with_quote('"', name)]),
        alias: Some(TableAlias {
            explicit: true,
            name: alias,
            columns: Vec::new(),
            at: None,
        }),
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    TableWithJoins {
        relation,
        joins: Vec::new(),
    }
}

/// `alias.column`, under the column's own name.
pub(super) fn item(alias: &Ident, column: &str) -> SelectItem {
    let expr = Expr::CompoundIdentifier(vec![alias.clone(), Ident::with_quote('"', column)]);
    SelectItem::ExprWithAlias {
        expr,
        alias: Ident::with_quote('"', column),
    }
}

/// All stored columns of a table, `_lsn` first where it has one.
pub(super) fn all_items(relation: &Relation, alias: &Ident, streaming: bool) -> Vec<SelectItem> {
    let lsn = streaming.then(|| item(alias, LSN));
    lsn.into_iter()
        .chain(relation.columns.iter().map(|c| item(alias, &c.name)))
        .collect()
}

/// Stored columns with new values for some; generated ones are left out, they are made again.
pub(super) fn changed_items(
    relation: &Relation,
    alias: &Ident,
    streaming: bool,
    values: &HashMap<String, Expr>,
) -> Vec<SelectItem> {
    let lsn = streaming.then(|| item(alias, LSN));
    let columns = relation
        .columns
        .iter()
        .filter(|c| c.generated.is_none())
        .map(|c| match values.get(&c.name) {
            None => item(alias, &c.name),
            Some(value) => SelectItem::ExprWithAlias {
                expr: value.clone(),
                alias: Ident::with_quote('"', &c.name),
            },
        });
    lsn.into_iter().chain(columns).collect()
}

/// `column = value` pairs of a statement, checked against the table.
pub(super) fn assignments(
    relation: &Relation,
    assignments: &[datafusion::sql::sqlparser::ast::Assignment],
) -> Result<HashMap<String, Expr>> {
    use datafusion::sql::sqlparser::ast::AssignmentTarget;
    let mut values = HashMap::new();
    for assignment in assignments {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(Error::unsupported(
                "SET (a, b) = … is not supported",
                "assign each column by itself",
            ));
        };
        let column = name
            .0
            .last()
            .and_then(|p| p.as_ident())
            .map(fold)
            .unwrap_or_default();
        match relation.columns.iter().find(|c| c.name == column) {
            None => {
                return Err(Error::refused(
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "column \"{column}\" of relation \"{}\" does not exist",
                        relation.name
                    ),
                ));
            }
            Some(c) if c.generated.is_some() => {
                return Err(super::write::generated_always(&column));
            }
            Some(_) => {}
        }
        if values
            .insert(column.clone(), assignment.value.clone())
            .is_some()
        {
            return Err(Error::refused(
                SqlState::SYNTAX_ERROR,
                format!("multiple assignments to same column \"{column}\""),
            ));
        }
    }
    Ok(values)
}

/// The rows that do not meet a condition (false or NULL). With a subquery in it that is everything
/// without those that do: the planner takes subqueries only where they stand alone. Equal rows meet a
/// condition alike, so nothing is lost by comparing values.
pub(super) fn unmet(
    items: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    condition: &Expr,
) -> Result<Query> {
    if !has_subquery(condition) {
        return query::select(items, from, Some(is_not_true(condition.clone())));
    }
    let everything = query::select(items.clone(), from.clone(), None)?;
    let met = query::select(items, from, Some(condition.clone()))?;
    Ok(except_all(everything, met))
}

/// The rows of a table that have no partner in `others`, by the condition that joins them; without one,
/// every row is a partner.
pub(super) fn unmatched(
    items: Vec<SelectItem>,
    table: TableWithJoins,
    others: Vec<TableWithJoins>,
    condition: Option<&Expr>,
) -> Result<Query> {
    if condition.is_some_and(has_subquery) {
        // as in `unmet`: equal rows have the same partners
        let mut from = vec![table.clone()];
        from.extend(others);
        let matched = query::select(items.clone(), from, condition.cloned())?;
        return Ok(except_all(
            query::select(items, vec![table], None)?,
            matched,
        ));
    }
    let one = SelectItem::UnnamedExpr(crate::dialect::parse_expr("1")?);
    let partners = query::select(vec![one], others, condition.cloned())?;
    let none = Expr::Exists {
        subquery: Box::new(partners),
        negated: true,
    };
    query::select(items, vec![table], Some(none))
}

fn except_all(mut everything: Query, without: Query) -> Query {
    everything.body = Box::new(SetExpr::SetOperation {
        op: SetOperator::Except,
        set_quantifier: SetQuantifier::All,
        left: everything.body,
        right: without.body,
    });
    everything
}

fn has_subquery(condition: &Expr) -> bool {
    let mut found = false;
    let _ = datafusion::sql::sqlparser::ast::visit_expressions(condition, |e| {
        found |= matches!(
            e,
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. }
        );
        std::ops::ControlFlow::<()>::Continue(())
    });
    found
}

/// `(e) IS TRUE` and its opposite.
pub(super) fn is_true(e: Expr) -> Expr {
    Expr::IsTrue(Box::new(Expr::Nested(Box::new(e))))
}

/// True unless `e` is true: false or NULL.
pub(super) fn is_not_true(e: Expr) -> Expr {
    Expr::IsNotTrue(Box::new(Expr::Nested(Box::new(e))))
}
