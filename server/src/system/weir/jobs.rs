//! `weir.jobs`: background work on objects the role sees.

use super::object_name;
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for job in cx.jobs.iter().flat_map(|jobs| jobs.list()) {
        let relation = job.object.and_then(|o| cx.catalog.relation_by_oid(o));
        if !access.superuser() && !relation.is_some_and(|r| access.sees_relation(r)) {
            continue;
        }
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        frame.row([
            ("id", job.id.into()),
            ("name", (&job.name).into()),
            (
                "object",
                job.object.map(|o| object_name(&cx.catalog, o)).into(),
            ),
            ("trigger", (&job.trigger).into()),
            ("state", (&job.state).into()),
            ("started_at", job.started_at_micros.into()),
            ("ended_at", job.ended_at_micros.into()),
            ("files_done", count(job.done.files).into()),
            ("files_total", count(job.total.files).into()),
            ("rows_done", count(job.done.rows).into()),
            ("rows_total", count(job.total.rows).into()),
            ("bytes_done", count(job.done.bytes).into()),
            ("bytes_total", count(job.total.bytes).into()),
            ("detail", job.detail.clone().into()),
            ("error", job.error.clone().into()),
        ])?;
    }
    Ok(())
}
