//! `weir.jobs`: background work on objects the role sees.

use super::object_name;
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for job in &cx.jobs {
        let relation = job.object.and_then(|o| cx.catalog.relation_by_oid(o));
        if !access.superuser() && !relation.is_some_and(|r| access.sees_relation(r)) {
            continue;
        }
        frame.row([
            ("name", (&job.name).into()),
            (
                "object",
                job.object.map(|o| object_name(&cx.catalog, o)).into(),
            ),
            ("state", (&job.state).into()),
            ("started_at", job.started_at_micros.into()),
            ("ended_at", job.ended_at_micros.into()),
            ("detail", job.detail.clone().into()),
        ])?;
    }
    Ok(())
}
