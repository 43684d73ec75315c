//! `pg_stat_activity`: connections. As in PostgreSQL, everyone sees that others are there, and only
//! members of their roles see what they do.

use super::DATABASE;
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::{Cell, Frame};

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for activity in &cx.live.activity() {
        let role = cx.catalog.role(&activity.role);
        let open = role.is_some_and(|r| access.is_member(r.oid));
        let shown = |cell: Cell| if open { cell } else { Cell::Null };
        let query = match &activity.query {
            _ if !open => Some("<insufficient privilege>".to_owned()),
            query => query.clone(),
        };
        frame.row([
            ("datid", DATABASE.into()),
            ("datname", (&cx.database).into()),
            ("pid", activity.pid.into()),
            ("usesysid", shown(role.map(|r| r.oid).into())),
            ("usename", shown((&activity.role).into())),
            (
                "application_name",
                shown(activity.application_name.clone().into()),
            ),
            ("client_addr", shown(activity.client_address.clone().into())),
            ("backend_start", shown(activity.connected_at_micros.into())),
            ("query_start", shown(activity.started_at_micros.into())),
            ("state", shown((&activity.state).into())),
            ("query", query.into()),
            ("backend_type", "client backend".into()),
        ])?;
    }
    Ok(())
}
