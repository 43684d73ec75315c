//! `weir.tables`: every table and view with its storage at this statement's cut.

use catalog::RelationKind;

use super::word;
use crate::error::Result;
use crate::system::frame::Frame;
use crate::system::stats::figures;
use crate::system::{SystemContext, option_list};

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations() {
        let figures = figures(&cx.head, relation.oid);
        // the rows of a view's state are not the view's rows
        let counted = figures.filter(|_| relation.kind != RelationKind::MaterializedView);
        frame.row([
            ("oid", relation.oid.into()),
            ("table_schema", schema.into()),
            ("table_name", (&relation.name).into()),
            ("kind", word(&relation.kind).into()),
            ("owner", cx.role_name(relation.owner).into()),
            ("location", relation.location.clone().into()),
            ("partition_by", relation.partition_by.clone().into()),
            ("options", option_list(&relation.options).into()),
            ("comment", relation.comment.clone().into()),
            ("lake_version", figures.map(|f| f.version).into()),
            ("files", figures.map(|f| f.files).into()),
            ("bytes", figures.map(|f| f.bytes.cast_signed()).into()),
            (
                "rows",
                counted.and_then(|f| f.rows()).map(u64::cast_signed).into(),
            ),
            (
                "tail_rows",
                counted.map(|f| f.tail_rows.cast_signed()).into(),
            ),
            ("flushed_lsn", figures.and_then(|f| f.flushed).into()),
            ("version", relation.version.into()),
        ])?;
    }
    Ok(())
}
