//! `ALTER MATERIALIZED VIEW v SET (schedule = '…', retention = '…', on_source_change = '…', refresh = '…')`.
//!
//! What is stored stays: options that would ask for another strategy are refused.

use std::collections::{BTreeMap, BTreeSet};

use catalog::{Change, Relation, Snapshot, Strategy};

use super::relations;
use crate::engine::names::defining_plan;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::exec::create_materialized_view::ages_by;
use crate::exec::{Outcome, Run};
use crate::governance::privileges;
use crate::jobs::publish;
use crate::views::{self, Kept, OnSourceChange, Options};

/// Runs the statement.
pub(super) async fn execute(
    run: &Run,
    view: &Relation,
    options: &BTreeMap<String, String>,
) -> Result<Outcome> {
    let scope = &run.scope;
    let engine = &scope.engine;
    privileges::check_owner(&scope.catalog, &scope.caller.role, view)?;
    scope.touch(view.oid);
    let plan = defining_plan(&scope.inlining_views(), view).await?.1;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let Some(found) = catalog.relation_by_oid(view.oid) else {
        return Err(Error::undefined_table(&view.name));
    };
    let mut altered = found.clone();
    altered.options.extend(options.clone());
    let wanted = Options::parse(&altered.options)?;
    if wanted.published.is_some() {
        publish::columns(&altered)?;
    }
    let Some(kept) = Kept::of(found)? else {
        return Err(relations::wrong_kind(found, "a materialized view"));
    };
    let analysis = views::analyze(&view.name, &plan, &wanted)?;
    // a view from before there was a cheaper way for its query stays what it is
    let cheaper = match kept.strategy {
        Strategy::Full => &[Strategy::Keyed, Strategy::Agg, Strategy::Agg2][..],
        Strategy::Keyed => &[Strategy::Agg, Strategy::Agg2],
        _ => &[],
    };
    let same = analysis.strategy == kept.strategy || cheaper.contains(&analysis.strategy);
    if !same {
        return Err(Error::unsupported(
            format!(
                "materialized view \"{}\" would have to be kept in another way",
                view.name
            ),
            "use CREATE OR REPLACE MATERIALIZED VIEW",
        ));
    }
    if let (Some(_), Some(view)) = (wanted.retention, &mut altered.materialized)
        && view.ages_by.is_none()
    {
        let name = &altered.name;
        view.ages_by = Some(ages_by(scope, name, &plan, kept.strategy)?);
    }
    let kept = Kept {
        options: wanted,
        ages_by: Kept::of(&altered)?.and_then(|k| k.ages_by),
        ..kept
    };
    check_dropped(scope, &view.name, &kept)?;
    if !kept.is_exact() {
        check_parents(&catalog, found)?;
    }
    engine.commit(vec![Change::PutRelation(altered)]).await?;
    engine.refresher.nudge();
    relations::done(run, "ALTER MATERIALIZED VIEW")
}

/// A view that kept what it had counted of changed rows would have to be made anew to follow; not when
/// rows it counts are gone by their retention.
fn check_dropped(scope: &Scope, name: &str, kept: &Kept) -> Result<()> {
    let head = scope.engine.stream.head();
    let Some(state) = head.views.get(&kept.oid) else {
        return Ok(());
    };
    let stands = kept.on_source_change() == OnSourceChange::Ignore
        || state.is_of(&kept.sources, &head)
        || state.holds_dropped_rows_of(&kept.sources, &head).is_none();
    match stands {
        true => Ok(()),
        false => Err(views::refresh::cannot_be_made_anew(name)),
    }
}

/// Views that are kept over this one keep what its query gives.
fn check_parents(catalog: &Snapshot, view: &Relation) -> Result<()> {
    let readers = relations::readers(catalog, &BTreeSet::from([view.oid]));
    let parent = readers
        .iter()
        .filter_map(|oid| catalog.relation_by_oid(*oid))
        .find(|r| r.materialized.is_some());
    match parent {
        None => Ok(()),
        Some(parent) => Err(Error::refused(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!(
                "materialized view \"{}\" cannot have these options: \"{}\" is kept over it",
                view.name, parent.name
            ),
        )
        .with_hint("drop the other view first")),
    }
}
