//! `weir.roles`: the roles and their groups. Verifiers are never shown.

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for role in cx.catalog.roles.iter().filter(|r| access.sees_role(r)) {
        let groups: Vec<String> = role
            .member_of
            .iter()
            .filter_map(|oid| cx.role_name(*oid))
            .collect();
        frame.row([
            ("oid", role.oid.into()),
            ("role_name", (&role.name).into()),
            ("login", role.login.into()),
            ("superuser", role.superuser.into()),
            ("member_of", groups.into()),
        ])?;
    }
    Ok(())
}
