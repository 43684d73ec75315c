//! `pg_description`: comments on relations and columns, and the functions that look one up.

use catalog::Oid;

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

/// `pg_class.oid` of `pg_class` itself.
const PG_CLASS: u32 = 1259;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (_, relation) in cx.relations() {
        let comments = relation.columns.iter().map(|c| &c.comment);
        for (i, comment) in std::iter::once(&relation.comment)
            .chain(comments)
            .enumerate()
        {
            let Some(comment) = comment else {
                continue;
            };
            frame.row([
                ("objoid", relation.oid.into()),
                ("classoid", PG_CLASS.into()),
                ("objsubid", i.into()),
                ("description", comment.into()),
            ])?;
        }
    }
    Ok(())
}

/// The comment on a relation (`column` 0) or on one of its columns, when the role sees it.
pub(crate) fn comment(cx: &SystemContext, relation: u32, column: i64) -> Option<String> {
    let relation = cx.catalog.relation_by_oid(Oid(relation))?;
    if !cx.access().sees_relation(relation) {
        return None;
    }
    if column == 0 {
        return relation.comment.clone();
    }
    let i = usize::try_from(column - 1).ok()?;
    relation.columns.get(i)?.comment.clone()
}
