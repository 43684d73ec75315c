//! `ARRAY(SELECT …)`: the column of a subquery as one list, in the subquery's order, empty when it has no rows.
//! Statements over system tables are left to `system`, which knows their keys.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident, ObjectName, OrderByExpr,
    OrderByKind, Query, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, Value,
    Visit, VisitMut, Visitor, VisitorMut, visit_expressions,
};

use super::spellings::call;
use super::words::{fold, parts};

/// What the subquery and its columns go by; it cannot be typed by accident.
const ROWS: &str = "\u{2}array";

/// Rewrites them in place, in any syntax tree.
pub(super) fn rewrite<T: Visit + VisitMut>(tree: &mut T) {
    if Visit::visit(tree, &mut System).is_continue() {
        rewrite_all(tree);
    }
}

/// The same in statements over system tables as well.
pub(crate) fn rewrite_all(tree: &mut impl VisitMut) {
    let _ = VisitMut::visit(tree, &mut Arrays);
}

struct System;

impl Visitor for System {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let parts = parts(relation);
        let schema = parts.iter().rev().nth(1).map(String::as_str);
        let system = matches!(schema, Some("pg_catalog" | "information_schema"))
            || parts.last().is_some_and(|name| name.starts_with("pg_"));
        match system {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

struct Arrays;

impl VisitorMut for Arrays {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let FunctionArguments::Subquery(query) = &function.args
            && parts(&function.name) == ["array"]
            && let Some(list) = gathered(query).or_else(|| list_of(query))
        {
            *expr = list;
        }
        ControlFlow::Continue(())
    }
}

/// `array_or_empty((SELECT array_agg(c ORDER BY …) FROM …))` where the subquery is no more than rows of tables:
/// the planner can take what it sees of the query around it.
fn gathered(query: &Query) -> Option<Expr> {
    if query.with.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return None;
    }
    let mut keys = keys_of(query)?;
    let mut query = query.clone();
    query.order_by = None;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return None;
    };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_slice()
    else {
        return None;
    };
    let calls = visit_expressions(value, |expr| match expr {
        // it may be an aggregate, of a window or of rows
        Expr::Function(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if grouped || select.distinct.is_some() || select.having.is_some() || calls.is_break() {
        return None;
    }
    let value = value.clone();
    let first = select.projection.first();
    for key in &mut keys {
        if is_first(&key.expr, first) {
            key.expr = value.clone();
        }
    }
    select.projection = vec![SelectItem::UnnamedExpr(array_agg(value, keys))];
    let subquery = Expr::Subquery(Box::new(query));
    Some(call("array_or_empty", vec![subquery]))
}

/// What a subquery is sorted by; nothing where that is by all of it.
fn keys_of(query: &Query) -> Option<Vec<OrderByExpr>> {
    match query.order_by.as_ref().map(|order| &order.kind) {
        None => Some(Vec::new()),
        Some(OrderByKind::Expressions(keys)) => Some(keys.clone()),
        Some(OrderByKind::All(_)) => None,
    }
}

fn array_agg(value: Expr, keys: Vec<OrderByExpr>) -> Expr {
    let mut gathered = call("array_agg", vec![value]);
    if let Expr::Function(function) = &mut gathered
        && let FunctionArguments::List(list) = &mut function.args
        && !keys.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(keys));
    }
    gathered
}

/// Whether a key is the first item of a select list, by its number, its name or as it is written.
fn is_first(key: &Expr, first: Option<&SelectItem>) -> bool {
    match (key, first) {
        (Expr::Value(value), _) => {
            matches!(&value.value, Value::Number(number, _) if number == "1")
        }
        (Expr::Identifier(key), Some(SelectItem::ExprWithAlias { alias, .. })) => {
            fold(key) == fold(alias)
        }
        (key, Some(SelectItem::UnnamedExpr(value))) => key == value,
        _ => false,
    }
}

fn name(at: usize) -> Ident {
    Ident::with_quote('"', format!("{ROWS} {at}"))
}

/// `array_or_empty((SELECT array_agg(c0 ORDER BY c1, …) FROM (subquery) AS rows (c0, c1, …)))`.
fn list_of(query: &Query) -> Option<Expr> {
    let mut rows = query.clone();
    let keys = sort_columns(&mut rows)?;
    let columns = keys.iter().map(|(at, _)| *at).max().unwrap_or(0) + 1;
    let keys = keys.into_iter().map(|(at, mut key)| {
        key.expr = Expr::Identifier(name(at));
        key
    });
    let gathered = array_agg(Expr::Identifier(name(0)), keys.collect());
    let mut query = super::parse_query("SELECT 1 FROM (SELECT 1) AS t").ok()?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return None;
    };
    select.projection = vec![SelectItem::UnnamedExpr(gathered)];
    let TableFactor::Derived {
        subquery, alias, ..
    } = &mut select.from.first_mut()?.relation
    else {
        return None;
    };
    **subquery = rows;
    let columns = (0..columns).map(|at| TableAliasColumnDef {
        name: name(at),
        data_type: None,
    });
    *alias = Some(TableAlias {
        explicit: true,
        name: Ident::with_quote('"', ROWS),
        columns: columns.collect(),
        at: None,
    });
    let subquery = Expr::Subquery(Box::new(query));
    Some(call("array_or_empty", vec![subquery]))
}

/// What the rows are sorted by, each with the number of its column; those that are not selected become
/// columns. Nothing where that would change the rows.
fn sort_columns(query: &mut Query) -> Option<Vec<(usize, OrderByExpr)>> {
    let keys = keys_of(query)?;
    if query.limit_clause.is_none() && query.fetch.is_none() {
        query.order_by = None;
    }
    let mut select = match query.body.as_mut() {
        SetExpr::Select(select) if select.distinct.is_none() => Some(select),
        _ => None,
    };
    let first = select
        .as_ref()
        .and_then(|select| select.projection.first().cloned());
    let mut added = 0;
    let mut sorted = Vec::with_capacity(keys.len());
    for key in keys {
        // a union and distinct rows have no other column
        if select.is_none() || is_first(&key.expr, first.as_ref()) {
            sorted.push((0, key));
            continue;
        }
        let select = select.as_mut()?;
        added += 1;
        select.projection.push(SelectItem::ExprWithAlias {
            expr: key.expr.clone(),
            alias: name(added),
        });
        sorted.push((added, key));
    }
    Some(sorted)
}
