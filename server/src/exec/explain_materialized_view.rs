//! `EXPLAIN CREATE MATERIALIZED VIEW v AS query` and `EXPLAIN MATERIALIZED VIEW v`: how the query is
//! kept, or why it cannot be. Nothing is made.

use catalog::Privilege;

use super::{Outcome, Run, create_materialized_view, relations, rows};
use crate::dialect::ExplainMaterializedView;
use crate::engine::names::defining_plan;
use crate::engine::scope::bound;
use crate::error::Result;
use crate::governance::privileges;
use crate::views;

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &ExplainMaterializedView) -> Result<Outcome> {
    let scope = &run.scope;
    let (plan, options, there) = match &s.create {
        Some(create) => {
            let options = create_materialized_view::options(create)?;
            let query = bound((*create.query).clone())?;
            (scope.inlining_views().plan(&query).await?.1, options, None)
        }
        None => {
            let (view, kept) = relations::find_materialized(scope, &s.name)?;
            let role = &scope.caller.role;
            privileges::check_relation(&scope.catalog, role, view, Privilege::Select)?;
            scope.touch(view.oid);
            let plan = defining_plan(&scope.inlining_views(), view).await?.1;
            (plan, kept.options, Some(kept))
        }
    };
    let mut examination = views::examine(&plan, &options)?;
    if let (Some(_), Some(strategy)) = (options.retention, examination.strategy()) {
        let name = s.name.to_string();
        let column = match there.as_ref().and_then(|kept| kept.ages_by) {
            Some(column) => column,
            None => {
                let at = create_materialized_view::ages_by(scope, &name, &plan, strategy)?;
                usize::try_from(at).unwrap_or(usize::MAX)
            }
        };
        let state = there
            .as_ref()
            .and_then(|kept| scope.head.views.get(&kept.oid));
        let floor = state.map(|view| view.floor);
        let finding = views::floor::finding(&plan, strategy, column, floor);
        examination.findings.push(finding);
    }
    let there = there.as_ref().map(|kept| (kept, &*scope.head));
    Ok(rows::of_batch(
        "EXPLAIN",
        views::explain(&examination, there)?,
    ))
}
