//! `weir.queries`: what all connections are doing. The text of another role's statement is its own
//! business: only a superuser and members of that role see it.

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for activity in &cx.live.activity() {
        let role = cx.catalog.role(&activity.role);
        if !access.superuser() && !role.is_some_and(|r| access.is_member(r.oid)) {
            continue;
        }
        frame.row([
            ("pid", activity.pid.into()),
            ("session", (&activity.session).into()),
            ("door", (&activity.door).into()),
            ("role", (&activity.role).into()),
            ("application_name", activity.application_name.clone().into()),
            ("client_address", activity.client_address.clone().into()),
            ("state", (&activity.state).into()),
            ("query", activity.query.clone().into()),
            ("started_at", activity.started_at_micros.into()),
            ("connected_at", activity.connected_at_micros.into()),
        ])?;
    }
    Ok(())
}
