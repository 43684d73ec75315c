//! `weir.compaction_history`: files that were merged or ordered since the server started, on tables the
//! role sees. `DESCRIBE HISTORY` has those of before.

use super::object_name;
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    for done in cx.jobs.iter().flat_map(|jobs| jobs.compactions()) {
        let relation = cx.catalog.relation_by_oid(done.object);
        if !access.superuser() && !relation.is_some_and(|r| access.sees_relation(r)) {
            continue;
        }
        frame.row([
            ("job_id", done.job.into()),
            ("object", object_name(&cx.catalog, done.object).into()),
            ("kind", done.kind.into()),
            ("started_at", done.started_at_micros.into()),
            ("ended_at", done.ended_at_micros.into()),
            ("files_before", count(done.before.files).into()),
            ("files_after", count(done.after.files).into()),
            ("bytes_before", count(done.before.bytes).into()),
            ("bytes_after", count(done.after.bytes).into()),
            ("rows", count(done.after.rows).into()),
            ("version", done.version.into()),
        ])?;
    }
    Ok(())
}
