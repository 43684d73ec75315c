//! `information_schema.schemata`.

use crate::error::Result;
use crate::system::frame::Frame;
use crate::system::{SCHEMAS, SystemContext};

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for schema in cx.catalog.schemas.iter().filter(|s| access.sees_schema(s)) {
        row(frame, cx, &schema.name, cx.role_name(schema.owner))?;
    }
    let system = cx.role_name(catalog::Oid(10));
    for name in SCHEMAS {
        row(frame, cx, name, system.clone())?;
    }
    Ok(())
}

fn row(frame: &mut Frame, cx: &SystemContext, name: &str, owner: Option<String>) -> Result<()> {
    frame.row([
        ("catalog_name", (&cx.database).into()),
        ("schema_name", name.into()),
        ("schema_owner", owner.into()),
    ])
}
