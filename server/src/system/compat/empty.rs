//! Queries over tables that never have rows here (policies, triggers, indexes, …): the result is
//! empty whatever else the query says, so only its columns and its parameters are kept.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr,
    Join, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr, TableFactor,
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

/// A subquery in an expression over nothing is known: no row, no value, no elements.
pub(super) fn constant(expr: &mut Expr) {
    let query = match &*expr {
        Expr::Subquery(query)
        | Expr::Exists {
            subquery: query, ..
        } => query,
        Expr::Function(Function {
            args: FunctionArguments::Subquery(query),
            name,
            ..
        }) if scope::parts(name) == ["array"] => query,
        _ => return,
    };
    if !is_empty_query(query) || !parameters(query.as_ref()).is_empty() {
        return;
    }
    *expr = match &*expr {
        Expr::Exists { negated, .. } => build::boolean(*negated),
        Expr::Function(_) => build::call("array_or_empty", vec![build::null_text()]),
        _ => Expr::Value(Value::Null.into()),
    };
}

fn is_empty_query(query: &Query) -> bool {
    query.with.is_none() && is_empty_body(&query.body)
}

fn is_empty_body(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => empty_source(select).is_some() && !has_row_anyway(select),
        SetExpr::Query(query) => is_empty_query(query),
        SetExpr::SetOperation { left, right, .. } => is_empty_body(left) && is_empty_body(right),
        _ => false,
    }
}

/// An aggregate without groups has one row over no rows.
fn has_row_anyway(select: &Select) -> bool {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    !grouped && select.projection.iter().any(has_aggregate)
}

fn fold_select(select: &mut Select) -> bool {
    let Some(table) = empty_source(select).cloned() else {
        return false;
    };
    let wildcard = select
        .projection
        .iter()
        .any(|item| scope::item_expr(item).is_none());
    if wildcard || has_row_anyway(select) {
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
            let value = unnested(&*expr).unwrap_or(&*expr);
            let column = matches!(value, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
            if !(column && scope.owns(value)) {
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

/// What `unnest(…)` is called with: the element of a column keeps its type.
fn unnested(expr: &Expr) -> Option<&Expr> {
    let Expr::Function(Function {
        name,
        args: FunctionArguments::List(list),
        ..
    }) = expr
    else {
        return None;
    };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(of))] => {
            (scope::parts(name) == ["unnest"]).then_some(of)
        }
        _ => None,
    }
}

fn last_part(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(scope::folded(name)),
        Expr::CompoundIdentifier(path) => path.last().map(scope::folded),
        _ => None,
    }
}

/// A table without rows that every result row would need one of.
fn empty_source(select: &Select) -> Option<&TableFactor> {
    select
        .from
        .iter()
        .find_map(empty_table)
        .or_else(|| foreign_constraints(select))
}

fn empty_table(from: &TableWithJoins) -> Option<&TableFactor> {
    needed(from)?.find_map(|table| match table {
        TableFactor::NestedJoin {
            table_with_joins, ..
        } => empty_table(table_with_joins),
        other => is_empty(other).then_some(other),
    })
}

/// The tables of which every result row has one row.
fn needed(from: &TableWithJoins) -> Option<impl Iterator<Item = &TableFactor>> {
    let outer = |join: &Join| {
        matches!(
            join.join_operator,
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_)
        )
    };
    let inner = |join: &Join| {
        matches!(
            join.join_operator,
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
        )
    };
    let known = from.joins.iter().all(|j| inner(j) || outer(j));
    let joined = from.joins.iter().filter(move |j| inner(j));
    known.then(|| std::iter::once(&from.relation).chain(joined.map(|join| &join.relation)))
}

fn is_empty(table: &TableFactor) -> bool {
    if let TableFactor::Derived { subquery, .. } = table {
        return is_empty_query(subquery);
    }
    scope::system_table(table).is_some_and(|shape| match shape.schema {
        "pg_catalog" => pg_catalog::always_empty(shape.name),
        "information_schema" => information_schema::always_empty(shape.name),
        _ => false,
    })
}

/// `pg_constraint` where only constraints of other kinds than `CHECK` are asked for.
fn foreign_constraints(select: &Select) -> Option<&TableFactor> {
    let table = select
        .from
        .iter()
        .filter_map(needed)
        .flatten()
        .find(|t| scope::system_table(t).is_some_and(|s| s.name == "pg_constraint"))?;
    let on = select
        .from
        .iter()
        .flat_map(|f| &f.joins)
        .filter_map(|j| match &j.join_operator {
            JoinOperator::Join(JoinConstraint::On(on))
            | JoinOperator::Inner(JoinConstraint::On(on)) => Some(on.clone()),
            _ => None,
        });
    let name = scope::table_name(table)?;
    let other = select
        .selection
        .iter()
        .cloned()
        .chain(on)
        .flat_map(|c| build::conjuncts(Some(c)))
        .any(|c| is_other_kind(&c, &name));
    other.then_some(table)
}

fn is_other_kind(condition: &Expr, table: &str) -> bool {
    let is_contype = |e: &Expr| match e {
        Expr::Identifier(name) => scope::folded(name) == "contype",
        Expr::CompoundIdentifier(path) => {
            let path: Vec<String> = path.iter().map(scope::folded).collect();
            path.ends_with(&[table.to_owned(), "contype".to_owned()])
        }
        _ => false,
    };
    let other = |e: &Expr| matches!(text(e), Some(kind) if kind != "c");
    match condition {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            right,
        } => (is_contype(left) && other(right)) || (is_contype(right) && other(left)),
        Expr::InList {
            expr,
            list,
            negated: false,
        } => is_contype(expr) && list.iter().all(other),
        _ => false,
    }
}

/// The text of a literal, also under a cast.
fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Cast { expr, .. } | Expr::Nested(expr) => text(expr),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn has_aggregate(item: &SelectItem) -> bool {
    /// How many subqueries the visit is inside of: theirs do not count.
    struct Aggregates(usize);
    impl Visitor for Aggregates {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(f) if self.0 == 0 && super::subqueries::is_aggregate(f) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    scope::item_expr(item).is_some_and(|e| e.visit(&mut Aggregates(0)).is_break())
}

fn parameters(part: &impl Visit) -> Vec<Expr> {
    struct Parameters(Vec<Expr>);
    impl Visitor for Parameters {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Value(value) = expr
                && matches!(value.value, Value::Placeholder(_))
                && !self.0.contains(expr)
            {
                self.0.push(expr.clone());
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Parameters(Vec::new());
    let _ = part.visit(&mut found);
    found.0
}
