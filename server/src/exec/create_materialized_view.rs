//! `CREATE [OR REPLACE] MATERIALIZED VIEW`: analyzed first, so a query that cannot be kept exactly is
//! refused before anything is made; then the state's storage, the catalog and the first refresh.

use std::sync::Arc;

use catalog::{Change, MaterializedView, ObjectKind, Relation, RelationKind, Snapshot};

use super::relations::{self, Place};
use super::{Outcome, Run};
use crate::dialect::CreateMaterializedView;
use crate::dialect::refuse::clause;
use crate::engine::Engine;
use crate::engine::open::location;
use crate::engine::scope::bound;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::stream::ViewSpec;
use crate::views;

const TAG: &str = "CREATE MATERIALIZED VIEW";

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &CreateMaterializedView) -> Result<Outcome> {
    check_options(s)?;
    let place = relations::place(&run.scope, &s.name)?;
    if let Some(there) = place.occupant(&run.scope.catalog) {
        match (s.or_replace, s.if_not_exists) {
            (true, _) => replaceable(&run.scope.catalog, &run.scope.caller.role, there)?,
            (false, true) => return Outcome::command(TAG),
            (false, false) => return Err(place.taken()),
        }
    }
    let query = bound((*s.query).clone())?;
    // the caller becomes the owner: its rights are the definer's
    let (_, plan) = run.scope.plan(&query).await?;
    relations::no_parameters(&plan, "materialized view")?;
    let columns = relations::query_columns(&query, plan.schema(), &s.columns)?;
    let analysis = views::analyze(&place.name, &plan)?;
    let mut view = place.relation(RelationKind::MaterializedView, columns);
    view.query = Some(s.query_text.clone());
    view.depends_on = relations::named_relations(&run.scope, &query)?;
    view.options = s.options.clone();
    view.materialized = Some(MaterializedView {
        strategy: analysis.strategy,
        codes: analysis.codes.clone(),
        state_format: views::STATE_FORMAT,
        source: analysis.source,
    });

    let (scope, or_replace, if_not_exists) =
        (Arc::clone(&run.scope), s.or_replace, s.if_not_exists);
    let made = relations::to_its_end("create materialized view", async move {
        let engine = Arc::clone(&scope.engine);
        let _ddl = engine.ddl().await;
        let catalog = engine.catalog();
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
    let Some(source) = view.materialized.as_ref().map(|m| m.source) else {
        return Err(Error::Internal(
            "a materialized view without a source".to_owned(),
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
        source,
        root: location(view)?,
    };
    engine.stream.create_view(spec).await
}

/// Stores what the source holds now. A query that fails over these rows makes no view: the error
/// belongs to the statement. When the client leaves meanwhile, the background refresher goes on.
async fn first_refresh(engine: &Arc<Engine>, view: &Relation) -> Result<()> {
    let Some(kept) = &view.materialized else {
        return Ok(());
    };
    let Err(failed) = engine.refresher.refresh(view.oid, kept.source).await else {
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

/// Accepts the options whose meaning is honoured.
pub(super) fn check_options(s: &CreateMaterializedView) -> Result<()> {
    const KNOWN: &str = "the options are refresh = 'auto', 'incremental' or 'strict', and \
                         on_source_change = 'fail'";
    clause(
        s.or_replace && s.if_not_exists,
        "OR REPLACE with IF NOT EXISTS",
        "use one of them",
    )?;
    for (key, value) in &s.options {
        let folded = value.to_lowercase();
        let (there, later): (&[&str], &[&str]) = match key.as_str() {
            "refresh" => (&["auto", "incremental", "strict"], &["full"]),
            "on_source_change" => (&["fail"], &["ignore", "recompute"]),
            "schedule" | "retention" => {
                return Err(Error::unsupported(
                    format!("option \"{key}\" is not supported"),
                    KNOWN,
                ));
            }
            _ => {
                let message = format!("unrecognized option \"{key}\"");
                let e = Error::refused(SqlState::INVALID_PARAMETER_VALUE, message);
                return Err(e.with_hint(KNOWN));
            }
        };
        if there.contains(&folded.as_str()) {
            continue;
        }
        let message = format!("{key} = '{value}' is not supported");
        let state = match later.contains(&folded.as_str()) {
            true => SqlState::FEATURE_NOT_SUPPORTED,
            false => SqlState::INVALID_PARAMETER_VALUE,
        };
        return Err(Error::refused(state, message).with_hint(KNOWN));
    }
    Ok(())
}
