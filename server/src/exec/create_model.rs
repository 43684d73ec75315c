//! `CREATE [OR REPLACE] MODEL`: runs the training query at the statement's cut, trains, and stores the
//! model as a new version with the lineage of what it learned from.
//!
//! Models lie in no schema; who may create in the schema `public` may make them. Training holds no
//! lock: what it found free or taken is looked at again before the commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::{Change, Model, ModelVersion, Privilege, Snapshot};
use datafusion::arrow::array::RecordBatch;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;

use super::{Outcome, Run, alter_model, lineage, relations};
use crate::dialect::CreateModel;
use crate::dialect::words::parts;
use crate::engine::activity::now_micros;
use crate::engine::scope::{DEFAULT_SCHEMA, Scope, bound};
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::ml::{self, Trained};

/// Most that a training query may give.
const MAX_ROWS: usize = 5_000_000;
const MAX_BYTES: usize = 512 * 1024 * 1024;

/// What a version of a model is made from.
#[derive(Debug)]
pub(super) struct Recipe {
    /// `logistic_regression`, `kmeans`.
    pub(super) kind: String,
    /// `WITH`
    pub(super) options: BTreeMap<String, String>,
    /// The training query as written.
    pub(super) query: String,
}

/// What came out of it.
#[derive(Debug)]
pub(super) struct Learned {
    trained: Trained,
    plan: LogicalPlan,
    scope: Arc<Scope>,
}

/// Trains and stores a model.
pub(super) async fn execute(run: &Run, s: &CreateModel) -> Result<Outcome> {
    let name = model_name(&s.name)?;
    let caller = &run.scope.caller.role;
    check(&run.scope.catalog, caller, &name, s.or_replace)?;
    relations::no_temporary(&run.scope, &bound((*s.query).clone())?, "model")?;
    let recipe = Recipe {
        kind: s.kind.clone(),
        options: s.options.clone(),
        query: s.query_text.clone(),
    };
    let learned = learn(&run.scope, &recipe, (*s.query).clone()).await?;

    let engine = &run.scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    check(&catalog, caller, &name, s.or_replace)?;
    let model = match catalog.model(&name) {
        Some(model) => model.clone(),
        None => Model {
            oid: engine.allocate_oid().await?,
            name,
            kind: s.kind.clone(),
            owner: privileges::role(&catalog, caller)?.oid,
            current: 0,
            aliases: BTreeMap::new(),
            version: 0,
        },
    };
    engine
        .commit(changes(&catalog, model, recipe, learned, "CREATE MODEL"))
        .await?;
    run.session()?
        .with_transaction(|t| t.note_write("CREATE MODEL"));
    Outcome::command("CREATE MODEL")
}

/// The name of a model, which has no schema.
pub(super) fn model_name(name: &ast::ObjectName) -> Result<String> {
    let parts = parts(name);
    match parts.as_slice() {
        [name] if name.is_empty() || name.contains('@') => Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("model name \"{name}\" is empty or has an @, which begins a version"),
        )),
        [name] => Ok(name.clone()),
        _ => Err(Error::unsupported(
            format!(
                "model name \"{}\" with a schema is not supported",
                parts.join(".")
            ),
            "models lie in no schema: use the name alone",
        )),
    }
}

/// Refuses a role that may not make or replace this model, and a name that is taken.
fn check(catalog: &Snapshot, role: &str, name: &str, or_replace: bool) -> Result<()> {
    if catalog.model(name).is_none() {
        let Some(public) = catalog.schema(DEFAULT_SCHEMA) else {
            return privileges::check_superuser(catalog, role, "create models");
        };
        return privileges::check_schema(catalog, role, public.oid, Privilege::Create);
    }
    if or_replace {
        return alter_model::owned(catalog, role, name).map(drop);
    }
    Err(Error::refused(
        SqlState::DUPLICATE_OBJECT,
        format!("model \"{name}\" already exists"),
    )
    .with_hint("use CREATE OR REPLACE MODEL or RETRAIN MODEL"))
}

/// Runs the training query with the scope's rights, at its cut, and trains on what it gives.
pub(super) async fn learn(
    scope: &Arc<Scope>,
    recipe: &Recipe,
    query: ast::Query,
) -> Result<Learned> {
    let (state, plan) = scope.plan(&bound(query)?).await?;
    let schema = Arc::new(plan.schema().as_arrow().clone());
    let rows = collect(DataFrame::new(state, plan.clone())).await?;
    let trained = ml::train(&recipe.kind, recipe.options.clone(), schema, rows).await?;
    Ok(Learned {
        trained,
        plan,
        scope: Arc::clone(scope),
    })
}

/// The rows of the training query. A cancel or the deadline drops the query with this future.
async fn collect(frame: DataFrame) -> Result<Vec<RecordBatch>> {
    let mut stream = frame.execute_stream().await?;
    let (mut rows, mut bytes) = (0_usize, 0_usize);
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        bytes += batch.get_array_memory_size();
        if rows > MAX_ROWS || bytes > MAX_BYTES {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "the training query gives too much data",
            )
            .with_detail(format!(
                "at most {MAX_ROWS} rows and {} MiB are trained on",
                MAX_BYTES >> 20
            ))
            .with_hint("train on a sample, or on aggregated features"));
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// One catalog transaction: the new version, made current, and its lineage. Edges of older versions
/// stay: they can still be used.
pub(super) fn changes(
    catalog: &Snapshot,
    mut model: Model,
    recipe: Recipe,
    learned: Learned,
    statement: &str,
) -> Vec<Change> {
    let oid = model.oid;
    let numbers = catalog
        .model_versions
        .iter()
        .filter(|v| v.model == oid)
        .map(|v| v.number);
    let number = numbers.max().unwrap_or(0) + 1;
    model.kind = recipe.kind;
    model.current = number;
    let whole = ["*".to_owned()];
    let edges = lineage::edges(&learned.scope, &learned.plan, oid, &whole, statement);
    let version = ModelVersion {
        model: oid,
        number,
        query: recipe.query,
        options: recipe.options,
        artifact: learned.trained.artifact,
        metrics: learned.trained.metrics,
        trained_at_micros: now_micros(),
    };
    vec![
        Change::PutModel(model),
        Change::AddModelVersion(version),
        Change::AddLineage(edges),
    ]
}
