//! `CREATE [OR REPLACE] MATERIALIZED VIEW`: analyzed first, so a query that cannot be kept exactly is
//! refused before anything is made; then the state's storage, the catalog and the first refresh.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{
    Change, MadeIn, MaterializedView, ObjectKind, Relation, RelationKind, Snapshot, Strategy,
};
use datafusion::logical_expr::LogicalPlan;

use super::relations::{self, Place};
use super::{Outcome, Run};
use crate::dialect::CreateMaterializedView;
use crate::dialect::refuse::clause;
use crate::engine::Engine;
use crate::engine::open::location;
use crate::engine::scope::{Scope, bound};
use crate::error::{Error, Result};
use crate::governance::privileges;
use crate::jobs::{publish, retention};
use crate::stream::ViewSpec;
use crate::views::refresh::By;
use crate::views::{self, Kept, Options};

const TAG: &str = "CREATE MATERIALIZED VIEW";

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &CreateMaterializedView) -> Result<Outcome> {
    let options = options(s)?;
    let place = relations::place(&run.scope, &s.name)?;
    if let Some(there) = place.occupant(&run.scope.catalog) {
        match (s.or_replace, s.if_not_exists) {
            (true, _) => replaceable(&run.scope.catalog, &run.scope.caller.role, there)?,
            (false, true) => return Outcome::command(TAG),
            (false, false) => return Err(place.taken()),
        }
    }
    let query = bound((*s.query).clone())?;
    relations::no_temporary(&run.scope, &query, "materialized view")?;
    // the caller becomes the owner: its rights are the definer's
    let (_, plan) = run.scope.plan(&query).await?;
    relations::no_parameters(&plan, "materialized view")?;
    let columns = relations::query_columns(&query, plan.schema(), &s.columns)?;
    let kept = run.scope.inlining_views().plan(&query).await?.1;
    let analysis = views::analyze(&place.name, &kept, &options)?;
    let ages_by = match options.retention {
        None => None,
        Some(_) => Some(ages_by(&run.scope, &place.name, &kept, analysis.strategy)?),
    };
    let mut view = place.relation(RelationKind::MaterializedView, columns);
    view.query = Some(s.query_text.clone());
    view.depends_on = relations::named_relations(&run.scope, &query)?;
    check_children(&run.scope, &view)?;
    view.options = s.options.clone();
    if options.published.is_some() {
        publish::columns(&view)?;
    }
    view.materialized = Some(MaterializedView {
        strategy: analysis.strategy,
        codes: analysis.codes.clone(),
        state_format: views::STATE_FORMAT,
        source: analysis.source,
        sources: analysis.sources.clone(),
        ages_by,
        made_in: Some(Box::new(MadeIn {
            schema: run.scope.caller.schema.clone(),
            time_zone: run.scope.caller.time_zone.clone(),
        })),
    });

    let (scope, or_replace, if_not_exists) =
        (Arc::clone(&run.scope), s.or_replace, s.if_not_exists);
    let made = relations::to_its_end("create materialized view", async move {
        let engine = Arc::clone(&scope.engine);
        let _ddl = engine.ddl().await;
        let catalog = engine.catalog();
        relations::unchanged(&scope, &catalog, &view.depends_on)?;
        retention::check_view(&catalog, &view.name, analysis.strategy, &analysis.sources)?;
        let old = match place.occupant(&catalog) {
            None => None,
            Some(there) if or_replace => {
                replaceable(&catalog, &scope.caller.role, there)?;
                Some(there.clone())
            }
            Some(_) if if_not_exists => return Ok(None),
            Some(_) => return Err(place.taken()),
        };
        make_storage(&engine, &place, &mut view, views::state_schema(&analysis)).await?;
        let mut changes: Vec<Change> = old.iter().map(drop_change).collect();
        changes.push(Change::PutRelation(view.clone()));
        changes.extend(relations::lineage(
            &scope,
            &plan,
            view.oid,
            &view.columns,
            TAG,
        ));
        if let Err(e) = engine.commit(changes).await {
            relations::delete_storage(&engine, std::slice::from_ref(&view)).await;
            return Err(e);
        }
        relations::delete_storage(&engine, old.as_slice()).await;
        Ok(Some(view))
    })
    .await?;
    if let Some(view) = &made {
        first_refresh(&run.scope.engine, view).await?;
        relations::note_write(run, TAG)?;
    }
    Outcome::command(TAG)
}

async fn make_storage(
    engine: &Engine,
    place: &Place,
    view: &mut Relation,
    schema: arrow::datatypes::SchemaRef,
) -> Result<()> {
    let Some(kept) = Kept::of(view)? else {
        return Err(Error::Internal(
            "a materialized view that is none".to_owned(),
        ));
    };
    view.oid = engine.allocate_oid().await?;
    let root = engine.location_for(&place.schema.name, &place.name, view.oid)?;
    view.location = Some(root.to_string());
    let spec = ViewSpec {
        oid: view.oid,
        name: view.name.clone(),
        schema,
        partition_by: Vec::new(),
        source: kept.source,
        sources: kept.sources,
        root: location(view)?,
    };
    engine.stream.create_view(spec).await
}

/// Stores what the source holds now. A query that fails over these rows makes no view: the error
/// belongs to the statement. When the client leaves meanwhile, the background refresher goes on.
async fn first_refresh(engine: &Arc<Engine>, view: &Relation) -> Result<()> {
    let Err(failed) = engine.refresher.refresh(view.oid, By::Statement).await else {
        return Ok(());
    };
    let (engine, oid) = (Arc::clone(engine), view.oid);
    relations::to_its_end("drop unfilled view", async move {
        let _ddl = engine.ddl().await;
        let Some(now) = engine.catalog().relation_by_oid(oid).cloned() else {
            return Ok(());
        };
        engine.commit(vec![drop_change(&now)]).await?;
        relations::delete_storage(&engine, &[now]).await;
        Ok(())
    })
    .await?;
    Err(failed)
}

fn drop_change(relation: &Relation) -> Change {
    Change::Drop {
        kind: ObjectKind::Relation,
        oid: relation.oid,
        version: relation.version,
    }
}

fn replaceable(catalog: &Snapshot, role: &str, there: &Relation) -> Result<()> {
    match there.kind {
        RelationKind::MaterializedView => privileges::check_owner(catalog, role, there),
        _ => Err(relations::wrong_kind(there, "a materialized view")),
    }
}

/// The statement's options.
pub(super) fn options(s: &CreateMaterializedView) -> Result<Options> {
    clause(
        s.or_replace && s.if_not_exists,
        "OR REPLACE with IF NOT EXISTS",
        "use one of them",
    )?;
    Options::parse(&s.options)
}

/// The result column by which a view's results age.
pub(super) fn ages_by(
    scope: &Scope,
    name: &str,
    plan: &LogicalPlan,
    strategy: Strategy,
) -> Result<u32> {
    let event_time = |oid| {
        let table = scope.catalog.relation_by_oid(oid)?;
        table.options.get("event_time").cloned()
    };
    views::floor::ages_by(name, plan, strategy, &event_time)
}

/// A view over materialized views keeps what their queries give, so theirs must be exact at each cut.
fn check_children(scope: &Scope, view: &Relation) -> Result<()> {
    let mut open = view.depends_on.clone();
    let mut seen = BTreeSet::new();
    while let Some(oid) = open.pop() {
        let Some(relation) = scope
            .catalog
            .relation_by_oid(oid)
            .filter(|_| seen.insert(oid))
        else {
            continue;
        };
        open.extend(&relation.depends_on);
        let Some(child) = Kept::of(relation)? else {
            continue;
        };
        if !child.is_exact() {
            return Err(Error::unsupported(
                format!(
                    "materialized view \"{}\" cannot be kept over \"{}\"",
                    view.name, relation.name
                ),
                "read the tables below it, or give it no schedule, no retention and not on_source_change = 'ignore'",
            ));
        }
    }
    Ok(())
}
