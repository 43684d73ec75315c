//! `pg_tables`, `pg_views`, `pg_matviews`, `pg_stat_user_tables`: relations by name.

use catalog::{Relation, RelationKind};

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;
use crate::system::stats::figures;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations().into_iter().filter(|(_, r)| is_table(r)) {
        frame.row([
            ("schemaname", schema.into()),
            ("tablename", (&relation.name).into()),
            ("tableowner", cx.role_name(relation.owner).into()),
            ("hasindexes", false.into()),
            ("hasrules", false.into()),
            ("hastriggers", false.into()),
            ("rowsecurity", false.into()),
        ])?;
    }
    Ok(())
}

pub(super) fn pg_views(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations() {
        if relation.kind == RelationKind::View {
            frame.row([
                ("schemaname", schema.into()),
                ("viewname", (&relation.name).into()),
                ("viewowner", cx.role_name(relation.owner).into()),
                ("definition", relation.query.clone().into()),
            ])?;
        }
    }
    Ok(())
}

pub(super) fn pg_matviews(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations() {
        if relation.kind == RelationKind::MaterializedView {
            frame.row([
                ("schemaname", schema.into()),
                ("matviewname", (&relation.name).into()),
                ("matviewowner", cx.role_name(relation.owner).into()),
                ("hasindexes", false.into()),
                ("ispopulated", true.into()),
                ("definition", relation.query.clone().into()),
            ])?;
        }
    }
    Ok(())
}

pub(super) fn pg_stat_tables(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations().into_iter().filter(|(_, r)| is_table(r)) {
        let rows = figures(&cx.head, relation.oid).and_then(|f| f.rows());
        frame.row([
            ("relid", relation.oid.into()),
            ("schemaname", schema.into()),
            ("relname", (&relation.name).into()),
            ("n_live_tup", rows.map(u64::cast_signed).into()),
        ])?;
    }
    Ok(())
}

fn is_table(relation: &Relation) -> bool {
    matches!(
        relation.kind,
        RelationKind::Table | RelationKind::StreamingTable
    )
}
