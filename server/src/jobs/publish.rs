//! Results of views with `published = '…'`, written for readers outside when they are due.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use catalog::{Oid, Relation, Snapshot};

use super::registry::{Amount, Trigger};
use super::rows;
use crate::engine::Engine;
use crate::engine::activity::now_micros;
use crate::engine::names::view_plan;
use crate::engine::open::location;
use crate::engine::scope::{Caller, Scope};
use crate::error::Result;
use crate::lake;
use crate::stream::head::DbHead;
use crate::stream::published_at;
use crate::types;
use crate::views::Kept;

/// What was published of a view.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    at: i64,
    cut: Vec<(Oid, i64, i64)>,
}

/// The columns of a published result.
///
/// # Errors
/// 0A000 naming a column that a plain Delta table cannot hold.
pub fn columns(view: &Relation) -> Result<SchemaRef> {
    let fields = view.columns.iter();
    let fields = fields.map(|c| types::field(&c.name, &c.sql_type, true));
    let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    lake::storable(&schema)?;
    Ok(schema)
}

/// Publishes a view's result when that is due and it may be another one; says whether it did.
pub(super) async fn publish(
    engine: &Arc<Engine>,
    oid: Oid,
    last: &mut Option<Published>,
) -> Result<bool> {
    let scope = Arc::new(Scope::new(engine, Caller::system()));
    let Some(view) = scope.catalog.relation_by_oid(oid).cloned() else {
        return Ok(false);
    };
    let Some(every) = Kept::of(&view)?.and_then(|kept| kept.options.published) else {
        *last = None;
        return Ok(false);
    };
    let every = i64::try_from(every.as_micros()).unwrap_or(i64::MAX);
    let now = now_micros();
    let made = scope.head.views.get(&oid).and_then(|v| v.refreshed_at);
    let due = last
        .as_ref()
        .is_none_or(|p| p.at.saturating_add(every) <= now);
    if !due || made.is_none() {
        return Ok(false);
    }
    let cut = cut(&scope.catalog, &scope.head, &view);
    if last.as_ref().is_some_and(|p| p.cut == cut) {
        return Ok(false);
    }
    let schema = columns(&view)?;
    let root = published_at(&location(&view)?)?;
    let job = engine.jobs.begin("publish", oid, Trigger::Schedule);
    let work = async {
        let plan = view_plan(&scope, &view).await?;
        let state = Arc::new(scope.of_view(&view)?).state()?;
        let physical = state.create_physical_plan(&plan).await?;
        let rows = rows::streamed(engine, physical, state.task_ctx(), &job, true);
        engine.stream.publish(oid, root, schema, rows).await
    };
    let result = Box::pin(work).await;
    job.advance(Amount::default());
    let detail = result
        .as_ref()
        .ok()
        .map(|number| format!("version {number}"));
    job.end(&result, detail);
    result.map(|_| {
        *last = Some(Published { at: now, cut });
        true
    })
}

/// What a view's result depends on, as far as it changes: its tables' positions and epochs, and its own
/// state's, by which a view with a schedule or a retention is read.
fn cut(catalog: &Snapshot, head: &DbHead, view: &Relation) -> Vec<(Oid, i64, i64)> {
    let mut open = vec![view.oid];
    let mut seen = BTreeSet::new();
    let mut cut = Vec::new();
    while let Some(oid) = open.pop() {
        if !seen.insert(oid) {
            continue;
        }
        let relation = catalog.relation_by_oid(oid);
        open.extend(relation.into_iter().flat_map(|r| r.depends_on.clone()));
        if let Some(table) = head.tables.get(&oid) {
            cut.push((oid, table.newest().0, table.epoch()));
        }
        let scheduled = relation.is_some_and(|r| r.options.contains_key("schedule"));
        if let Some(state) = head.views.get(&oid) {
            let run = if scheduled { state.run } else { 0 };
            cut.push((oid, run, state.floor.at.unwrap_or(0)));
        }
    }
    cut
}
