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
    let plan = match &s.create {
        Some(create) => {
            create_materialized_view::check_options(create)?;
            let query = bound((*create.query).clone())?;
            scope.plan(&query).await?.1
        }
        None => {
            let (view, _) = relations::find_materialized(scope, &s.name)?;
            let role = &scope.caller.role;
            privileges::check_relation(&scope.catalog, role, view, Privilege::Select)?;
            scope.touch(view.oid);
            defining_plan(scope, view).await?.1
        }
    };
    let examination = views::examine(&plan)?;
    Ok(rows::of_batch("EXPLAIN", views::explain(&examination)?))
}
