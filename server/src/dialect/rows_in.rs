//! `(a, b) [NOT] IN (SELECT x, y …)` as a condition of `WHERE`: the planner compares one column only, so it
//! becomes `EXISTS` over the subquery's rows. Below `NOT (…)` it stays, where NULL and false differ.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, Select, SelectItem, SetExpr, Statement, TableAlias,
    TableAliasColumnDef, TableFactor, VisitMut, VisitorMut,
};

/// What the subquery goes by; it cannot be typed by accident.
const ROWS: &str = "\u{2}in";

/// Rewrites them in place, in any syntax tree.
pub(super) fn rewrite(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Wheres);
}

struct Wheres;

impl VisitorMut for Wheres {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        select.selection.iter_mut().for_each(condition);
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<()> {
        match statement {
            Statement::Delete(delete) => delete.selection.iter_mut().for_each(condition),
            Statement::Update(update) => update.selection.iter_mut().for_each(condition),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn condition(expr: &mut Expr) {
    match expr {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And | BinaryOperator::Or,
            right,
        } => {
            condition(left);
            condition(right);
        }
        Expr::Nested(inner) => condition(inner),
        Expr::InSubquery {
            expr: row,
            subquery,
            negated,
        } => {
            if let Expr::Tuple(values) = row.as_ref()
                && let Some(exists) = exists(values, subquery, *negated)
            {
                *expr = exists;
            }
        }
        _ => {}
    }
}

/// `EXISTS (SELECT 1 FROM (subquery) AS rows (c0, …) WHERE rows.c0 = a AND …)`. A row is not in the subquery
/// when it is clear of each of the subquery's rows that it is another: `NOT EXISTS (… WHERE (…) IS NOT FALSE)`.
fn exists(values: &[Expr], rows: &Query, negated: bool) -> Option<Expr> {
    let mut query = super::parse_query("SELECT 1 FROM (SELECT 1) AS t").ok()?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return None;
    };
    let TableFactor::Derived {
        subquery, alias, ..
    } = &mut select.from.first_mut()?.relation
    else {
        return None;
    };
    **subquery = rows.clone();
    // values may be alike, their names may not
    if let SetExpr::Select(select) = subquery.body.as_mut() {
        for (at, item) in select.projection.iter_mut().enumerate() {
            if let SelectItem::UnnamedExpr(expr) = item
                && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
            {
                let expr = expr.clone();
                let alias = Ident::with_quote('"', format!("{ROWS} {at}"));
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
        }
    }
    let name = |at: usize| Ident::with_quote('"', format!("{ROWS} {at}"));
    let columns = (0..values.len()).map(|at| TableAliasColumnDef {
        name: name(at),
        data_type: None,
    });
    *alias = Some(TableAlias {
        explicit: true,
        name: Ident::with_quote('"', ROWS),
        columns: columns.collect(),
        at: None,
    });
    let equal = values.iter().enumerate().map(|(at, value)| Expr::BinaryOp {
        left: Box::new(Expr::CompoundIdentifier(vec![
            Ident::with_quote('"', ROWS),
            name(at),
        ])),
        op: BinaryOperator::Eq,
        right: Box::new(Expr::Nested(Box::new(value.clone()))),
    });
    select.selection = equal.reduce(|left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    });
    if negated && let SetExpr::Select(select) = query.body.as_mut() {
        let equal = select.selection.take()?;
        select.selection = Some(Expr::IsNotFalse(Box::new(Expr::Nested(Box::new(equal)))));
    }
    Some(Expr::Exists {
        subquery: Box::new(query),
        negated,
    })
}
