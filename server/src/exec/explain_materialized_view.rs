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
    let examination = views::examine(&plan, &options)?;
    let there = there.as_ref().map(|kept| (kept, &*scope.head));
    Ok(rows::of_batch(
        "EXPLAIN",
        views::explain(&examination, there)?,
    ))
}
