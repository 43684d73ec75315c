//! `DELETE FROM t [AS a] [WHERE e]`.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use catalog::{Privilege, Relation, RelationKind};
use datafusion::sql::sqlparser::ast::{Delete, FromTable, Statement as Ast};

use super::rewrite::{self, Change, Named, Part, RowKind};
use super::{Outcome, Run, ingest, query};
use crate::dialect::refuse::clause;
use crate::dialect::words::parts;
use crate::error::{Error, Result};
use crate::governance::privileges;
use crate::session::Description;

/// Removes the rows.
pub(super) async fn execute(run: &Run, delete: &Delete) -> Result<Outcome> {
    let (relation, table) = understand(run, delete)?;
    privileges::check_relation(
        &run.scope.catalog,
        &run.scope.caller.role,
        relation,
        Privilege::Delete,
    )?;
    run.scope.touch(relation.oid);
    let views = rewrite::check_views(&run.scope, relation)?;
    let streaming = relation.kind == RelationKind::StreamingTable;
    let parts = match &delete.selection {
        None => Vec::new(),
        Some(predicate) => {
            let items = rewrite::all_items(relation, &table.alias, streaming);
            vec![Part {
                query: rewrite::unmet(items, vec![table.from], predicate)?,
                kind: RowKind::Kept,
            }]
        }
    };
    let change = Change {
        parts,
        must_be_zero: Vec::new(),
        sources: HashMap::new(),
    };
    let gone = rewrite::apply(run, relation, change, views).await?.deleted;
    run.session()?.with_transaction(|t| t.note_write("DELETE"));
    Ok(Outcome::Command {
        tag: format!("DELETE {gone}"),
        rows: Some(gone),
    })
}

/// Parameters of a DELETE, from its condition.
pub(super) async fn describe(
    run: &Run,
    delete: &Delete,
    hints: &[Option<DataType>],
) -> Result<Description> {
    let (relation, table) = understand(run, delete)?;
    privileges::check_relation(
        &run.scope.catalog,
        &run.scope.caller.role,
        relation,
        Privilege::Delete,
    )?;
    let items = rewrite::all_items(relation, &table.alias, false);
    let rows = query::select(items, vec![table.from], delete.selection.clone())?;
    let state = run.scope.writing(relation.oid, Privilege::Delete).state()?;
    let (params, _) = query::parameters(&state, Ast::Query(Box::new(rows)), hints).await?;
    Ok(Description {
        params,
        schema: None,
    })
}

fn understand<'a>(run: &'a Run, delete: &Delete) -> Result<(&'a Relation, Named)> {
    let Delete {
        delete_token: _,
        optimizer_hints: _,
        tables,
        from,
        using,
        selection: _,
        returning,
        output,
        order_by,
        limit,
    } = delete;
    clause(
        !tables.is_empty(),
        "DELETE of several tables",
        "delete from one table at a time",
    )?;
    clause(
        using.is_some(),
        "DELETE … USING",
        "use WHERE … IN (SELECT …) or EXISTS",
    )?;
    clause(
        returning.is_some() || output.is_some(),
        "RETURNING",
        "read the rows before",
    )?;
    clause(
        !order_by.is_empty() || limit.is_some(),
        "DELETE … LIMIT",
        "use WHERE",
    )?;
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = from;
    let [table] = tables.as_slice() else {
        return Err(Error::unsupported(
            "DELETE from a join is not supported",
            "use WHERE … IN (SELECT …)",
        ));
    };
    clause(
        !table.joins.is_empty(),
        "DELETE from a join",
        "use WHERE … IN (SELECT …)",
    )?;
    target(run, &table.relation)
}

/// The table a DELETE, UPDATE or MERGE names.
pub(super) fn target<'a>(
    run: &'a Run,
    table: &datafusion::sql::sqlparser::ast::TableFactor,
) -> Result<(&'a Relation, Named)> {
    let named = rewrite::named(table)?;
    let datafusion::sql::sqlparser::ast::TableFactor::Table { name, .. } = table else {
        return Err(Error::Internal("a target that is no table".to_owned()));
    };
    let (schema, name) = run.scope.split_name(&parts(name))?;
    Ok((ingest::target(&run.scope, &schema, &name)?, named))
}
