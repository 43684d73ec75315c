//! Clauses of queries that say in other words what the planner knows: `FETCH FIRST n ROWS ONLY` is `LIMIT n`,
//! and `VALUES` with a subquery in it are the rows of a `SELECT` each.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Fetch, Ident, LimitClause, Query, SelectItem, SetExpr, SetOperator, SetQuantifier,
    TableFactor, Value, ValueWithSpan, Values, VisitMut, VisitorMut, visit_expressions,
};

/// Rewrites them in place, in any syntax tree.
pub(super) fn rewrite(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Clauses);
}

struct Clauses;

impl VisitorMut for Clauses {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        fetch_first(query);
        if let SetExpr::Values(values) = query.body.as_ref()
            && let Some(rows) = selected(values)
            && let Some(ordered) =
                in_order(rows, values.rows.first().map_or(0, |r| r.content.len()))
        {
            query.body = ordered.body;
            query.order_by = query.order_by.take().or(ordered.order_by);
        }
        ControlFlow::Continue(())
    }
}

/// `WITH TIES`, percentages, and a limit beside it are left for a refusal.
fn fetch_first(query: &mut Query) {
    let Some(Fetch {
        with_ties: false,
        percent: false,
        quantity,
    }) = &query.fetch
    else {
        return;
    };
    let one = || Expr::Value(ValueWithSpan::from(Value::Number("1".to_owned(), false)));
    let rows = quantity.clone().unwrap_or_else(one);
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) if limit.is_none() => *limit = Some(rows),
        Some(_) => return,
        none => {
            *none = Some(LimitClause::LimitOffset {
                limit: Some(rows),
                offset: None,
                limit_by: Vec::new(),
            });
        }
    }
    query.fetch = None;
}

/// The rows, each selected, when one of them holds a subquery: the planner computes those of `VALUES` before it
/// runs any.
fn selected(values: &Values) -> Option<SetExpr> {
    let is_subquery = |expr: &Expr| {
        let found = visit_expressions(expr, |expr| match expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        found.is_break()
    };
    let is_default = |expr: &Expr| matches!(expr, Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"));
    let mut all = values.rows.iter().flat_map(|row| row.content.iter());
    if !all.clone().any(is_subquery) || all.any(is_default) {
        return None;
    }
    let mut rows = values
        .rows
        .iter()
        .enumerate()
        .map(|(at, row)| select(&row.content, at));
    let first = rows.next()??;
    rows.try_fold(first, |before, row| {
        Some(SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier: SetQuantifier::All,
            left: Box::new(before),
            right: Box::new(row?),
        })
    })
}

/// The number of a row, which keeps their order; it cannot be typed by accident.
const NUMBER: &str = "\u{2}row";

fn number() -> Ident {
    Ident::with_quote('"', NUMBER)
}

fn column(at: usize) -> Ident {
    Ident::new(format!("column{}", at + 1))
}

fn select(row: &[Expr], at: usize) -> Option<SetExpr> {
    let mut query = super::parse_query("SELECT 1").ok()?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        let place = Expr::Value(Value::Number(at.to_string(), false).into());
        let columns = row.iter().enumerate();
        let columns = columns.map(|(at, expr)| (expr.clone(), column(at)));
        select.projection = columns
            .chain([(place, number())])
            .map(|(expr, alias)| SelectItem::ExprWithAlias { expr, alias })
            .collect();
    }
    Some(*query.body)
}

/// The columns of the rows, in the order of the rows.
fn in_order(rows: SetExpr, columns: usize) -> Option<Query> {
    let text = format!("SELECT 1 FROM (SELECT 1) AS rows ORDER BY \"{NUMBER}\"");
    let mut query = super::parse_query(&text).ok()?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return None;
    };
    let columns = (0..columns).map(|at| SelectItem::UnnamedExpr(Expr::Identifier(column(at))));
    select.projection = columns.collect();
    if let TableFactor::Derived { subquery, .. } = &mut select.from.first_mut()?.relation {
        *subquery.body = rows;
    }
    Some(query)
}
