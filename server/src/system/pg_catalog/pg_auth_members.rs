//! `pg_auth_members`: who is a member of which role.

use super::SUPERUSER;
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for role in cx.catalog.roles.iter().filter(|r| access.sees_role(r)) {
        for group in &role.member_of {
            frame.row([
                ("roleid", (*group).into()),
                ("member", role.oid.into()),
                ("grantor", SUPERUSER.into()),
                ("admin_option", false.into()),
            ])?;
        }
    }
    Ok(())
}
