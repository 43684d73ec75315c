//! `CANCEL JOB n`: tells a job of `weir.jobs` to stop. What it has committed stays; it may run again when
//! its time comes.

use super::{Outcome, Run};
use crate::dialect::CancelJob;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

/// Runs the statement.
pub(super) fn execute(run: &Run, s: CancelJob) -> Result<Outcome> {
    let scope = &run.scope;
    let jobs = &scope.engine.jobs;
    let missing = || {
        Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("job {} is not running", s.id),
        )
        .with_hint("SELECT id, state FROM weir.jobs")
    };
    let id = i64::try_from(s.id).map_err(|_| missing())?;
    let object = jobs.object_of(id).ok_or_else(missing)?;
    match scope.catalog.relation_by_oid(object) {
        Some(relation) => {
            privileges::check_owner(&scope.catalog, &scope.caller.role, relation)?;
            scope.touch(object);
        }
        None => privileges::check_superuser(&scope.catalog, &scope.caller.role, "cancel this job")?,
    }
    match jobs.cancel(id) {
        true => Outcome::command("CANCEL JOB"),
        false => Err(missing()),
    }
}
