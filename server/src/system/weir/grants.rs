//! `weir.grants`: who was granted what.

use catalog::{Grant, ObjectKind, Snapshot};

use super::{object_name, word};
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for grant in cx.catalog.grants.iter().filter(|g| access.sees_grant(g)) {
        let grantee = match grant.grantee {
            Some(role) => cx.role_name(role),
            None => Some("public".to_owned()),
        };
        frame.row([
            ("grantee", grantee.unwrap_or_default().into()),
            ("grantor", cx.role_name(grant.grantor).into()),
            ("object_kind", word(&grant.object_kind).into()),
            ("object", granted(&cx.catalog, grant).into()),
            ("column_name", grant.column.clone().into()),
            ("privilege", word(&grant.privilege).into()),
            ("grant_option", grant.grant_option.into()),
        ])?;
    }
    Ok(())
}

fn granted(catalog: &Snapshot, grant: &Grant) -> String {
    let oid = grant.object;
    let name = match grant.object_kind {
        ObjectKind::Relation | ObjectKind::Model => return object_name(catalog, oid),
        ObjectKind::Role => catalog.role_by_oid(oid).map(|r| &r.name),
        ObjectKind::Schema => catalog.schema_by_oid(oid).map(|s| &s.name),
        ObjectKind::Secret => catalog
            .secrets
            .iter()
            .find(|s| s.oid == oid)
            .map(|s| &s.name),
    };
    name.cloned().unwrap_or_else(|| oid.to_string())
}
