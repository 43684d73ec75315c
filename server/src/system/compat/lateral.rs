//! `FROM pg_constraint AS c CROSS JOIN unnest(c.conkey) AS k`: the planner unnests in a select list only,
//! so the table becomes a subquery that does.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins,
};

use super::casts::take;
use super::{build, scope};

/// Rewrites every such join of a select.
pub(super) fn unnest(select: &mut Select) {
    for from in &mut select.from {
        let joins = std::mem::take(&mut from.joins);
        for mut join in joins {
            if !(is_cross(&join.join_operator) && put(&mut [&mut *from], &mut join.relation)) {
                from.joins.push(join);
            }
        }
    }
    let mut at = 1;
    while at < select.from.len() {
        let (before, rest) = select.from.split_at_mut(at);
        let mut before: Vec<&mut TableWithJoins> = before.iter_mut().collect();
        let alone = rest.first().is_some_and(|f| f.joins.is_empty());
        let gone = alone
            && rest
                .first_mut()
                .is_some_and(|f| put(&mut before, &mut f.relation));
        if gone {
            select.from.remove(at);
        } else {
            at += 1;
        }
    }
}

fn is_cross(operator: &JoinOperator) -> bool {
    matches!(
        operator,
        JoinOperator::CrossJoin(JoinConstraint::None)
            | JoinOperator::Join(JoinConstraint::None)
            | JoinOperator::Inner(JoinConstraint::None)
    )
}

/// Puts the function into the table of `before` whose column it unnests; false when it is none of ours.
fn put(before: &mut [&mut TableWithJoins], function: &mut TableFactor) -> bool {
    let TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs,
        with_offset: false,
        with_ordinality: false,
        ..
    } = function
    else {
        return false;
    };
    let [array] = array_exprs.as_mut_slice() else {
        return false;
    };
    let path: Vec<String> = match &*array {
        Expr::Identifier(name) => vec![scope::folded(name)],
        Expr::CompoundIdentifier(path) => path.iter().map(scope::folded).collect(),
        _ => return false,
    };
    let (table, column) = match path.as_slice() {
        [column] => (None, column),
        [.., table, column] => (Some(table), column),
        [] => return false,
    };
    let name = match alias.columns.as_slice() {
        [] => alias.name.clone(),
        [column, ..] => column.name.clone(),
    };
    for from in before {
        let joined = from.joins.iter_mut().map(|j: &mut Join| &mut j.relation);
        for relation in std::iter::once(&mut from.relation).chain(joined) {
            let Some(called) = scope::table_name(relation) else {
                continue;
            };
            let has = scope::system_table(relation)
                .is_some_and(|shape| shape.columns.iter().any(|c| c.name == column));
            if has && table.is_none_or(|t| *t == called) {
                *relation = unnested(relation.clone(), &called, column, name);
                let _ = take(array);
                return true;
            }
        }
    }
    false
}

/// `(SELECT *, unnest(column) AS name FROM table) AS called`.
fn unnested(mut table: TableFactor, called: &str, column: &str, name: Ident) -> TableFactor {
    if let TableFactor::Table { alias, .. } = &mut table {
        *alias = None;
    }
    let call = build::call("unnest", vec![Expr::Identifier(build::quoted(column))]);
    let Some(mut query) = build::parse("SELECT *") else {
        return table;
    };
    if let SetExpr::Select(select) = &mut *query.body {
        select.projection.push(SelectItem::ExprWithAlias {
            expr: call,
            alias: name,
        });
        select.from = vec![TableWithJoins {
            relation: table,
            joins: Vec::new(),
        }];
    }
    build::derived(query, called)
}
