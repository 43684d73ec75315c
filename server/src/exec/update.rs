//! `UPDATE t [AS a] SET c = e, … [WHERE e]`.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use catalog::{Privilege, Relation, RelationKind};
use datafusion::sql::sqlparser::ast::{SelectItem, Statement as Ast, Update};

use super::delete::target;
use super::rewrite::{self, Change, Named, Part, RowKind};
use super::{Outcome, Run, query};
use crate::dialect::refuse::clause;
use crate::error::Result;
use crate::governance::privileges;
use crate::session::Description;

/// Changes the rows.
pub(super) async fn execute(run: &Run, update: &Update) -> Result<Outcome> {
    let (relation, table) = understand(run, update)?;
    privileges::check_relation(
        &run.scope.catalog,
        &run.scope.caller.role,
        relation,
        Privilege::Update,
    )?;
    run.scope.touch(relation.oid);
    let views = rewrite::check_views(&run.scope, relation)?;
    let streaming = relation.kind == RelationKind::StreamingTable;
    let values = rewrite::assignments(relation, &update.assignments)?;
    let changed = rewrite::changed_items(relation, &table.alias, streaming, &values);
    let from = vec![table.from.clone()];
    let hit = update.selection.clone();
    let mut parts = vec![Part {
        query: query::select(changed, from.clone(), hit)?,
        kind: RowKind::Updated,
    }];
    if let Some(predicate) = &update.selection {
        let rest = rewrite::all_items(relation, &table.alias, streaming);
        parts.push(Part {
            query: rewrite::unmet(rest, from, predicate)?,
            kind: RowKind::Kept,
        });
    }
    let change = Change {
        parts,
        must_be_zero: Vec::new(),
        sources: HashMap::new(),
    };
    let count = rewrite::apply(run, relation, change, views).await?.updated;
    run.session()?.with_transaction(|t| t.note_write("UPDATE"));
    Ok(Outcome::Command {
        tag: format!("UPDATE {count}"),
        rows: Some(count),
    })
}

/// Parameters of an UPDATE: assigned ones take their column's type.
pub(super) async fn describe(
    run: &Run,
    update: &Update,
    hints: &[Option<DataType>],
) -> Result<Description> {
    use datafusion::sql::sqlparser::ast::{Expr, Value};
    let (relation, table) = understand(run, update)?;
    privileges::check_relation(
        &run.scope.catalog,
        &run.scope.caller.role,
        relation,
        Privilege::Update,
    )?;
    let values = rewrite::assignments(relation, &update.assignments)?;
    let mut hints = hints.to_vec();
    for (name, value) in &values {
        let Expr::Value(v) = value else { continue };
        let Value::Placeholder(text) = &v.value else {
            continue;
        };
        let Ok(n @ 1..) = text.trim_start_matches('$').parse::<usize>() else {
            continue;
        };
        let ty = relation
            .columns
            .iter()
            .find(|c| c.name == *name)
            .map(|c| crate::types::arrow_type(&c.sql_type));
        if hints.len() < n {
            hints.resize(n, None);
        }
        if let Some(hint) = hints.get_mut(n - 1) {
            *hint = hint.take().or(ty);
        }
    }
    let items: Vec<SelectItem> = rewrite::changed_items(relation, &table.alias, false, &values);
    let rows = query::select(items, vec![table.from], update.selection.clone())?;
    let state = run.scope.writing(relation.oid, Privilege::Update).state()?;
    let (params, _) = query::parameters(&state, Ast::Query(Box::new(rows)), &hints).await?;
    Ok(Description {
        params,
        schema: None,
    })
}

fn understand<'a>(run: &'a Run, update: &Update) -> Result<(&'a Relation, Named)> {
    let Update {
        update_token: _,
        optimizer_hints: _,
        table,
        assignments: _,
        from,
        selection: _,
        returning,
        output,
        or,
        order_by,
        limit,
    } = update;
    clause(
        from.is_some(),
        "UPDATE … FROM",
        "use MERGE, or a subquery in SET and WHERE",
    )?;
    clause(
        returning.is_some() || output.is_some(),
        "RETURNING",
        "read the rows afterwards",
    )?;
    clause(or.is_some(), "UPDATE OR …", "use UPDATE")?;
    clause(
        !order_by.is_empty() || limit.is_some(),
        "UPDATE … LIMIT",
        "use WHERE",
    )?;
    clause(!table.joins.is_empty(), "UPDATE of a join", "use MERGE")?;
    target(run, &table.relation)
}
