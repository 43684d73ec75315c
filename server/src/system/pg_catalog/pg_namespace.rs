//! `pg_namespace`: schemas.

use catalog::ObjectKind;

use super::acl::object_acl;
use super::{NAMESPACES, SUPERUSER};
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (name, oid) in NAMESPACES {
        frame.row([
            ("oid", oid.into()),
            ("nspname", name.into()),
            ("nspowner", SUPERUSER.into()),
        ])?;
    }
    let access = cx.access();
    for schema in cx.catalog.schemas.iter().filter(|s| access.sees_schema(s)) {
        frame.row([
            ("oid", schema.oid.into()),
            ("nspname", (&schema.name).into()),
            ("nspowner", schema.owner.into()),
            (
                "nspacl",
                object_acl(cx, ObjectKind::Schema, schema.oid, schema.owner).into(),
            ),
        ])?;
    }
    Ok(())
}
