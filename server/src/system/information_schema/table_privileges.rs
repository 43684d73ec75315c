//! `information_schema.table_privileges` and `role_table_grants`.

use catalog::ObjectKind;

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for grant in &cx.catalog.grants {
        if grant.object_kind != ObjectKind::Relation
            || grant.column.is_some()
            || !access.sees_grant(grant)
        {
            continue;
        }
        let Some(relation) = cx.catalog.relation_by_oid(grant.object) else {
            continue;
        };
        let schema = cx.catalog.schema_by_oid(relation.schema);
        let grantee = match grant.grantee {
            Some(role) => cx.role_name(role),
            None => Some("PUBLIC".to_owned()),
        };
        let privilege = format!("{:?}", grant.privilege).to_uppercase();
        frame.row([
            ("grantor", cx.role_name(grant.grantor).into()),
            ("grantee", grantee.into()),
            ("table_catalog", (&cx.database).into()),
            ("table_schema", schema.map(|s| &s.name).into()),
            ("table_name", (&relation.name).into()),
            ("privilege_type", privilege.as_str().into()),
            ("is_grantable", yes_or_no(grant.grant_option).into()),
            ("with_hierarchy", yes_or_no(privilege == "SELECT").into()),
        ])?;
    }
    Ok(())
}

fn yes_or_no(v: bool) -> &'static str {
    if v { "YES" } else { "NO" }
}
