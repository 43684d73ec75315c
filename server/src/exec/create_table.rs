//! `CREATE [STREAMING] TABLE`: its columns, constraints and options checked, then storage, then the
//! catalog: a name that is there always has its storage.

pub(super) mod columns;
pub(super) mod expressions;
pub(super) mod options;
mod source;

use std::sync::Arc;

use catalog::{Change, Relation, RelationKind};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast::{OnCommit, Query};
use futures::StreamExt;

use super::relations::{self, Place};
use super::{Outcome, Run, evolve};
use crate::dialect::CreateTable;
use crate::dialect::refuse::clause;
use crate::dialect::words::parts;
use crate::engine::Engine;
use crate::engine::open::table_spec;
use crate::engine::scope::bound;
use crate::error::{Error, Result, SqlState};
use crate::governance::write_key;
use crate::types::{Evolution, RESCUED};

pub(super) use options::on_violation;

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &CreateTable) -> Result<Outcome> {
    refuse(s)?;
    let place = match is_temporary(s) {
        true => relations::temporary_place(run, &s.name).await?,
        false => relations::place(&run.scope, &s.name)?,
    };
    if place.occupant(&run.scope.catalog).is_some() {
        return match s.if_not_exists {
            true => Outcome::command(super::command(&run.statement)),
            false => Err(place.taken()),
        };
    }
    match &s.query {
        Some(query) => as_query(run, s, place, query).await,
        None => empty(run, s, place).await,
    }
}

/// `TEMPORARY` is said, or the schema that is every session's own.
fn is_temporary(s: &CreateTable) -> bool {
    let written = parts(&s.name);
    s.temporary || matches!(written.as_slice(), [.., schema, _] if schema == "pg_temp")
}

fn refuse(s: &CreateTable) -> Result<()> {
    clause(
        is_temporary(s) && s.streaming,
        "CREATE TEMPORARY STREAMING TABLE",
        "use CREATE TEMPORARY TABLE, or an ordinary streaming table",
    )?;
    match s.on_commit {
        None => {}
        Some(_) if !is_temporary(s) => {
            return Err(Error::refused(
                SqlState::INVALID_TABLE_DEFINITION,
                "ON COMMIT can only be used on temporary tables",
            ));
        }
        Some(OnCommit::PreserveRows) => {}
        Some(OnCommit::Drop | OnCommit::DeleteRows) => {
            return Err(Error::unsupported(
                "ON COMMIT DROP and ON COMMIT DELETE ROWS are not supported",
                "every statement commits: use DROP TABLE or TRUNCATE when the rows are done with",
            ));
        }
    }
    source::refuse(s)?;
    if s.query.is_none() {
        return Ok(());
    }
    clause(
        s.streaming,
        "CREATE STREAMING TABLE … AS",
        "create the streaming table with its columns, then INSERT INTO it SELECT …",
    )?;
    clause(
        !s.columns.is_empty() || !s.constraints.is_empty(),
        "a column list before AS",
        "name the columns in the query",
    )
}

async fn empty(run: &Run, s: &CreateTable, place: Place) -> Result<Outcome> {
    let kind = match s.streaming {
        true => RelationKind::StreamingTable,
        false => RelationKind::Table,
    };
    let defined = columns::define(&s.columns, &s.constraints, &place.name)?;
    relations::check_names(&defined.columns)?;
    relations::check_reserved(&defined.columns)?;
    if s.streaming && defined.columns.iter().any(|c| c.name == RESCUED) {
        return Err(relations::reserved(RESCUED, "values that have no column"));
    }
    expressions::check(&run.scope.state()?, &defined)?;
    columns::check_partitions(&defined.columns, &s.partitioned_by)?;
    options::check(s, &defined.columns)?;
    let mut relation = place.relation(kind, defined.columns);
    relation.checks = defined.checks;
    relation.partition_by = s.partitioned_by.clone();
    relation.options = s.options.clone();
    if evolve::option(&relation) == Some(Evolution::Rescue) {
        relation.columns.push(evolve::rescued_column());
    }
    relation
        .options
        .extend(source::declare(run, s, &relation.columns).await?);
    let made = make(
        &run.scope.engine,
        &place,
        relation,
        s.if_not_exists,
        Vec::new,
    )
    .await?;
    if let Some(made) = made {
        source::begin(run, &made).await;
    }
    relations::note_write(run, "CREATE TABLE")?;
    Outcome::command(super::command(&run.statement))
}

/// `CREATE TABLE … AS`: the table holds the query's rows in one commit, or is not there.
async fn as_query(run: &Run, s: &CreateTable, place: Place, query: &Query) -> Result<Outcome> {
    let query = bound(query.clone())?;
    let (state, plan) = super::query::plan(&run.scope, query.clone(), &run.params).await?;
    let columns = relations::query_columns(&query, plan.schema(), &[])?;
    relations::check_reserved(&columns)?;
    columns::check_partitions(&columns, &s.partitioned_by)?;
    options::check(s, &columns)?;
    let mut relation = place.relation(RelationKind::Table, columns);
    relation.partition_by = s.partitioned_by.clone();
    let scope = Arc::clone(&run.scope);
    let traced = plan.clone();
    let changes = {
        let columns = relation.columns.clone();
        move |oid| relations::lineage(&scope, &traced, oid, &columns, "CREATE TABLE AS")
    };
    let columns = relation.columns.clone();
    let engine = &run.scope.engine;
    let made = make_with(engine, &place, relation, s.if_not_exists, changes).await?;
    let Some(relation) = made else {
        return Outcome::command("CREATE TABLE AS");
    };
    if s.no_data {
        return relations::done(run, "CREATE TABLE AS");
    }
    // a cancelled statement drops this future: the table must go then too
    let undo = Undo::new(engine, relation.clone());
    let rows = match fill(engine, &relation, &state, named(plan, &columns)?).await {
        Ok(rows) => rows,
        Err(e) => {
            undo.now().await;
            return Err(e);
        }
    };
    undo.forget();
    relations::note_write(run, "CREATE TABLE AS")?;
    Ok(Outcome::Command {
        tag: format!("SELECT {rows}"),
        rows: Some(rows),
    })
}

/// The plan's columns under the names of the table's.
fn named(plan: LogicalPlan, columns: &[catalog::Column]) -> Result<LogicalPlan> {
    let exprs: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .zip(columns)
        .map(|(given, column)| Expr::Column(given).alias(&column.name))
        .collect();
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

async fn fill(
    engine: &Engine,
    relation: &Relation,
    state: &SessionState,
    plan: LogicalPlan,
) -> Result<u64> {
    let physical = state.create_physical_plan(&plan).await?;
    let batches = execute_stream(physical, state.task_ctx())?;
    engine
        .stream
        .lake_append(relation.oid, batches.map(|b| b.map_err(Error::from)))
        .await
}

/// Makes storage and catalog entry; nothing is left of either when one fails.
async fn make(
    engine: &Arc<Engine>,
    place: &Place,
    relation: Relation,
    if_not_exists: bool,
    changes: impl FnOnce() -> Vec<Change> + Send + 'static,
) -> Result<Option<Relation>> {
    make_with(engine, place, relation, if_not_exists, move |_| changes()).await
}

/// [`make`], with changes that need the table's id. `None` when the name was taken meanwhile and that
/// is no error.
async fn make_with(
    engine: &Arc<Engine>,
    place: &Place,
    mut relation: Relation,
    if_not_exists: bool,
    changes: impl FnOnce(catalog::Oid) -> Vec<Change> + Send + 'static,
) -> Result<Option<Relation>> {
    let (engine, place) = (Arc::clone(engine), place.clone());
    relations::to_its_end("create table", async move {
        let _ddl = engine.ddl().await;
        let catalog = engine.catalog();
        // a session that ends takes its schema with it
        if catalog.schema_by_oid(place.schema.oid).is_none() {
            return Err(relations::no_schema(&place.schema.name));
        }
        if place.occupant(&catalog).is_some() {
            return if if_not_exists {
                Ok(None)
            } else {
                Err(place.taken())
            };
        }
        relation.oid = engine.allocate_oid().await?;
        write_key::seal(&mut relation.options, relation.oid, &catalog)?;
        let root = engine.location_for(&place.schema.name, &place.name, relation.oid)?;
        relation.location = Some(root.to_string());
        engine
            .stream
            .create_table(table_spec(&catalog, &relation)?)
            .await?;
        let mut all = vec![Change::PutRelation(relation.clone())];
        all.extend(changes(relation.oid));
        if let Err(e) = engine.commit(all).await {
            relations::delete_storage(&engine, std::slice::from_ref(&relation)).await;
            return Err(e);
        }
        Ok(Some(relation))
    })
    .await
}

/// Drops a table that did not get its rows.
struct Undo {
    engine: Arc<Engine>,
    relation: Option<Relation>,
}

impl Undo {
    fn new(engine: &Arc<Engine>, relation: Relation) -> Self {
        Self {
            engine: Arc::clone(engine),
            relation: Some(relation),
        }
    }

    fn forget(mut self) {
        self.relation = None;
    }

    async fn now(mut self) {
        if let Some(relation) = self.relation.take() {
            drop_again(Arc::clone(&self.engine), relation).await;
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(relation) = self.relation.take() {
            let engine = Arc::clone(&self.engine);
            // the handle is not needed: the task ends by itself
            drop(crate::tasks::spawn(
                "drop unfilled table",
                drop_again(engine, relation),
            ));
        }
    }
}

async fn drop_again(engine: Arc<Engine>, relation: Relation) {
    let _ddl = engine.ddl().await;
    // the catalog counts versions: it may have been renamed meanwhile
    let Some(now) = engine.catalog().relation_by_oid(relation.oid).cloned() else {
        return;
    };
    let (kind, oid, version) = (catalog::ObjectKind::Relation, now.oid, now.version);
    match engine
        .commit(vec![Change::Drop { kind, oid, version }])
        .await
    {
        Ok(_) => relations::delete_storage(&engine, &[now]).await,
        Err(e) => {
            tracing::warn!(table = %now.name, error = %e, "cannot drop a table that has no rows")
        }
    }
}

/// 42703 of a column that a clause names.
fn no_column(name: &str) -> Error {
    Error::refused(
        SqlState::UNDEFINED_COLUMN,
        format!("column \"{name}\" does not exist"),
    )
}
