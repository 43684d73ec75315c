//! `REFRESH MATERIALIZED VIEW v [FULL]`: stores what the source holds beyond the state, or makes the
//! whole state anew. Reads of a view without a schedule are exact before and after: this only moves work.

use super::{Outcome, Run, relations};
use crate::dialect::RefreshMaterializedView;
use crate::error::Result;
use crate::governance::privileges;
use crate::views::refresh::By;

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &RefreshMaterializedView) -> Result<Outcome> {
    let scope = &run.scope;
    let (view, _) = relations::find_materialized(scope, &s.name)?;
    privileges::check_owner(&scope.catalog, &scope.caller.role, view)?;
    scope.touch(view.oid);
    let refresher = &scope.engine.refresher;
    match s.full {
        true => refresher.rebuild(view.oid, By::Statement).await?,
        false => refresher.refresh(view.oid, By::Statement).await?,
    };
    relations::done(run, "REFRESH MATERIALIZED VIEW")
}
