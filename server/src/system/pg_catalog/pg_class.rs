//! `pg_class`: tables, views and materialized views, also the system's own.

use catalog::{ObjectKind, Relation, RelationKind};

use super::acl::object_acl;
use super::{SUPERUSER, namespace_oid};
use crate::error::Result;
use crate::system::frame::Frame;
use crate::system::stats::figures;
use crate::system::{SystemContext, option_list, relkind, shapes};

/// `pg_am.oid` of the access method all tables have.
pub(super) const HEAP: u32 = 2;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations() {
        let temporary = ::catalog::names_temporary(schema);
        user_relation(frame, cx, relation, temporary)?;
    }
    for shape in shapes::all() {
        // below this line PostgreSQL has tables, above it views
        let kind = if shape.oid < 12000 { "r" } else { "v" };
        frame.row([
            ("oid", shape.oid.into()),
            ("relname", shape.name.into()),
            ("relnamespace", namespace_oid(cx, shape.schema).into()),
            ("relowner", SUPERUSER.into()),
            ("reltuples", (-1.0).into()),
            ("relpersistence", "p".into()),
            ("relkind", kind.into()),
            ("relnatts", shape.columns.len().into()),
            ("relispopulated", true.into()),
            ("relreplident", "n".into()),
        ])?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "reltuples is an estimate")]
fn user_relation(
    frame: &mut Frame,
    cx: &SystemContext,
    relation: &Relation,
    temporary: bool,
) -> Result<()> {
    let figures =
        figures(&cx.head, relation.oid).filter(|_| relation.kind != RelationKind::MaterializedView);
    let rows = figures.and_then(|f| f.rows()).map_or(-1.0, |r| r as f64);
    let pages = figures.map_or(0, |f| i32::try_from(f.bytes / 8192).unwrap_or(i32::MAX));
    let options = option_list(&relation.options);
    let stored = relation.kind != RelationKind::View;
    frame.row([
        ("oid", relation.oid.into()),
        ("relname", (&relation.name).into()),
        ("relnamespace", relation.schema.into()),
        ("relowner", relation.owner.into()),
        ("relam", if stored { HEAP } else { 0 }.into()),
        (
            "relfilenode",
            if stored { relation.oid.0 } else { 0 }.into(),
        ),
        ("relpages", pages.into()),
        ("reltuples", rows.into()),
        ("relpersistence", if temporary { "t" } else { "p" }.into()),
        ("relkind", relkind(relation.kind).into()),
        ("relnatts", relation.columns.len().into()),
        ("relchecks", relation.checks.len().into()),
        ("relispopulated", true.into()),
        ("relreplident", if stored { "d" } else { "n" }.into()),
        (
            "relacl",
            object_acl(cx, ObjectKind::Relation, relation.oid, relation.owner).into(),
        ),
        ("reloptions", Some(options).filter(|o| !o.is_empty()).into()),
    ])
}
