//! Queries over tables that never have rows here (policies, triggers, indexes, …): the result is
//! empty whatever else the query says, so only its columns and its parameters are kept.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Join, JoinOperator, Query, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins, Value, Visit, Visitor,
};

use super::{build, scope};
use crate::system::{information_schema, pg_catalog};

/// Reduces every empty SELECT of the query; drops the order when nothing is left to order.
pub(super) fn fold(query: &mut Query) {
    if query.with.is_none() && fold_body(&mut query.body) {
        query.order_by = None;
    }
}

/// Whether all of it is empty.
fn fold_body(body: &mut SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => fold_select(select),
        SetExpr::SetOperation { left, right, .. } => {
            let (left, right) = (fold_body(left), fold_body(right));
            left && right
        }
        _ => false,
    }
}

fn fold_select(select: &mut Select) -> bool {
    let Some(table) = select.from.iter().find_map(empty_table).cloned() else {
        return false;
    };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let wildcard = select
        .projection
        .iter()
        .any(|item| scope::item_expr(item).is_none());
    // without groups an aggregate has one row over no rows
    if wildcard || (!grouped && select.projection.iter().any(has_aggregate)) {
        return false;
    }
    let parameters = parameters(select);
    let only = TableWithJoins {
        relation: table,
        joins: Vec::new(),
    };
    let mut empty = Select {
        from: vec![only],
        group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
        having: None,
        distinct: None,
        ..select.clone()
    };
    let scope = scope::Scope::of(&empty);
    super::names::name_columns(&mut empty);
    for item in &mut empty.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
            if !(column && scope.owns(expr)) {
                *expr = build::null_text();
            }
        }
    }
    // a column of another table lost its name with its table
    for (item, original) in empty.projection.iter_mut().zip(&select.projection) {
        if let SelectItem::UnnamedExpr(expr @ Expr::Cast { .. }) = item {
            let name = scope::item_expr(original).and_then(last_part);
            let alias = build::quoted(&name.unwrap_or_else(|| "?column?".to_owned()));
            let expr = super::casts::take(expr);
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
    // the client binds as many parameters as it wrote
    let bound = parameters.into_iter().map(|p| Expr::IsNull(Box::new(p)));
    empty.selection = build::all(std::iter::once(build::boolean(false)).chain(bound));
    *select = empty;
    true
}

fn last_part(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(name.value.clone()),
        Expr::CompoundIdentifier(path) => path.last().map(|p| p.value.clone()),
        _ => None,
    }
}

/// A table without rows that every result row would need one of.
fn empty_table(from: &TableWithJoins) -> Option<&TableFactor> {
    let keeps_left = |join: &Join| {
        matches!(
            join.join_operator,
            JoinOperator::Join(_)
                | JoinOperator::Inner(_)
                | JoinOperator::Left(_)
                | JoinOperator::LeftOuter(_)
                | JoinOperator::CrossJoin(_)
        )
    };
    if !from.joins.iter().all(keeps_left) {
        return None;
    }
    let needed = from.joins.iter().filter(|join| {
        !matches!(
            join.join_operator,
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_)
        )
    });
    std::iter::once(&from.relation)
        .chain(needed.map(|join| &join.relation))
        .find(|table| is_empty(table))
}

fn is_empty(table: &TableFactor) -> bool {
    scope::system_table(table).is_some_and(|shape| match shape.schema {
        "pg_catalog" => pg_catalog::always_empty(shape.name),
        "information_schema" => information_schema::always_empty(shape.name),
        _ => false,
    })
}

fn has_aggregate(item: &SelectItem) -> bool {
    struct Aggregates;
    impl Visitor for Aggregates {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(f) if super::subqueries::is_aggregate(f) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    scope::item_expr(item).is_some_and(|e| e.visit(&mut Aggregates).is_break())
}

fn parameters(select: &Select) -> Vec<Expr> {
    struct Parameters(Vec<Expr>);
    impl Visitor for Parameters {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Value(value) = expr
                && matches!(value.value, Value::Placeholder(_)) && !self.0.contains(expr) {
                    self.0.push(expr.clone());
                }
            ControlFlow::Continue(())
        }
    }
    let mut found = Parameters(Vec::new());
    let _ = select.visit(&mut found);
    found.0
}
