//! `DELETE FROM t [AS a] [USING s, …] [WHERE e]`: with `USING`, rows that have a partner there go.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use catalog::{Privilege, Relation, RelationKind};
use datafusion::sql::sqlparser::ast::{
    Delete, Expr, FromTable, Query, Statement as Ast, TableWithJoins,
};

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
    let others = check(run, delete, relation)?;
    run.scope.touch(relation.oid);
    let views = rewrite::check_views(&run.scope, relation)?;
    let streaming = relation.kind == RelationKind::StreamingTable;
    let items = rewrite::all_items(relation, &table.alias, streaming);
    if !others.is_empty() {
        // below NOT EXISTS a name that both sides have would mean the inner one only
        let rows = joined(relation, &table, others, delete.selection.clone())?;
        let scope = run.scope.writing(relation.oid, Privilege::Delete);
        query::plan(&scope, rows, &run.params).await?;
    }
    let kept = match (others, &delete.selection) {
        ([], None) => None,
        ([], Some(condition)) => Some(rewrite::unmet(items, vec![table.from], condition)?),
        (others, condition) => Some(rewrite::unmatched(
            items,
            table.from,
            others.to_vec(),
            condition.as_ref(),
        )?),
    };
    let kind = RowKind::Kept;
    let parts = kept.into_iter().map(|query| Part { query, kind }).collect();
    let change = Change {
        parts,
        must_be_zero: Vec::new(),
        sources: HashMap::new(),
        one_to_one: None,
    };
    let gone = rewrite::apply(run, relation, change, views, "DELETE")
        .await?
        .deleted;
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
    let others = check(run, delete, relation)?;
    let rows = joined(relation, &table, others, delete.selection.clone())?;
    let state = run.scope.writing(relation.oid, Privilege::Delete).state()?;
    let (params, _) = query::parameters(&state, Ast::Query(Box::new(rows)), hints).await?;
    Ok(Description {
        params,
        schema: None,
    })
}

/// The rows that go, once per partner.
fn joined(
    relation: &Relation,
    table: &Named,
    others: &[TableWithJoins],
    condition: Option<Expr>,
) -> Result<Query> {
    let from = std::iter::once(&table.from).chain(others).cloned();
    let items = rewrite::all_items(relation, &table.alias, false);
    query::select(items, from.collect(), condition)
}

/// Checks the rights on the table; what stands beside it.
fn check<'a>(run: &Run, delete: &'a Delete, relation: &Relation) -> Result<&'a [TableWithJoins]> {
    let others = delete.using.as_deref().unwrap_or_default();
    check_rights(run, relation, Privilege::Delete, !others.is_empty())?;
    Ok(others)
}

/// Refuses (42501) to change rows without the right to, and, for a statement that joins them with
/// others, without the right to read them.
pub(super) fn check_rights(
    run: &Run,
    relation: &Relation,
    privilege: Privilege,
    joins: bool,
) -> Result<()> {
    let (catalog, role) = (&run.scope.catalog, &run.scope.caller.role);
    privileges::check_relation(catalog, role, relation, privilege)?;
    match joins {
        true => privileges::check_relation(catalog, role, relation, Privilege::Select),
        false => Ok(()),
    }
}

fn understand<'a>(run: &'a Run, delete: &Delete) -> Result<(&'a Relation, Named)> {
    let Delete {
        delete_token: _,
        optimizer_hints: _,
        tables,
        from,
        using: _,
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
            "use DELETE … USING",
        ));
    };
    clause(
        !table.joins.is_empty(),
        "DELETE from a join",
        "use DELETE … USING",
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
