//! `pg_roles`, `pg_user`, `pg_group`. Passwords are shown as stars, as PostgreSQL does.

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

const STARS: &str = "********";

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for role in cx.catalog.roles.iter().filter(|r| access.sees_role(r)) {
        frame.row([
            ("rolname", (&role.name).into()),
            ("rolsuper", role.superuser.into()),
            ("rolinherit", true.into()),
            ("rolcreaterole", role.superuser.into()),
            ("rolcreatedb", false.into()),
            ("rolcanlogin", role.login.into()),
            ("rolreplication", false.into()),
            ("rolconnlimit", (-1).into()),
            ("rolpassword", STARS.into()),
            ("rolbypassrls", role.superuser.into()),
            ("oid", role.oid.into()),
        ])?;
    }
    Ok(())
}

pub(super) fn pg_user(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    let users = cx.catalog.roles.iter().filter(|r| r.login);
    for role in users.filter(|r| access.sees_role(r)) {
        frame.row([
            ("usename", (&role.name).into()),
            ("usesysid", role.oid.into()),
            ("usecreatedb", false.into()),
            ("usesuper", role.superuser.into()),
            ("userepl", false.into()),
            ("usebypassrls", role.superuser.into()),
            ("passwd", STARS.into()),
        ])?;
    }
    Ok(())
}

pub(super) fn pg_group(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    let groups = cx.catalog.roles.iter().filter(|r| !r.login);
    for group in groups.filter(|r| access.sees_role(r)) {
        let members: Vec<i64> = cx
            .catalog
            .roles
            .iter()
            .filter(|r| r.member_of.contains(&group.oid) && access.sees_role(r))
            .map(|r| r.oid.0.into())
            .collect();
        frame.row([
            ("groname", (&group.name).into()),
            ("grosysid", group.oid.into()),
            ("grolist", members.into()),
        ])?;
    }
    Ok(())
}
