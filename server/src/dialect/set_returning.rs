//! Set-returning functions. In a select list, `SELECT generate_series(1, 3)` gives three rows: the
//! planner's function of that name gives one list, which is unnested here. In `FROM`, the one column
//! of `generate_series` or `unnest` is named as its alias, or else as the function. `WITH ORDINALITY` numbers the
//! rows by one more list.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, OrderBy,
    OrderByKind, Query, Select, SelectItem, TableAlias, TableAliasColumnDef, TableFactor, Value,
    ValueWithSpan, VisitMut, VisitorMut,
};

use super::column_names::{numbered, select_list};
use super::list_rows;
use super::words::parts;
use crate::error::{Error, Result};

const NAME: &str = "generate_series";

/// Rewrites them in place, in any syntax tree.
///
/// # Errors
/// 0A000 for one in `ORDER BY` that the select list has not.
pub(super) fn rewrite(tree: &mut impl VisitMut) -> Result<()> {
    match tree.visit(&mut SetReturning) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

/// Whether rows of such a function can be numbered.
pub(super) fn is_numbered(factor: &TableFactor) -> bool {
    list_rows::of(factor).is_some()
}

struct SetReturning;

impl VisitorMut for SetReturning {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        list_rows::name_bare_aliases(query);
        match sorted_by_rows(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for item in &mut select.projection {
            list_rows::unnest_in(item);
            match item {
                SelectItem::UnnamedExpr(Expr::Function(call)) if is_series(call) => {
                    *item = SelectItem::ExprWithAlias {
                        expr: Expr::Function(unnested(call)),
                        alias: Ident::new(NAME),
                    };
                }
                SelectItem::ExprWithAlias {
                    expr: Expr::Function(call),
                    ..
                } if is_series(call) => *call = unnested(call),
                SelectItem::UnnamedExpr(Expr::Function(call)) if is_unnest(call) => {
                    *item = SelectItem::ExprWithAlias {
                        expr: Expr::Function(call.clone()),
                        alias: Ident::new("unnest"),
                    };
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let Some(unnested) = list_rows::of(factor) {
            *factor = unnested;
        }
        match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                alias,
                with_ordinality: false,
                ..
            }
            | TableFactor::Function { name, alias, .. }
                if parts(name).last().is_some_and(|name| name == NAME) =>
            {
                name_column(alias, NAME);
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_ordinality: false,
                ..
            } if array_exprs.len() == 1 => name_column(alias, "unnest"),
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_ordinality: false,
                ..
            } => name_columns(alias, array_exprs.len()),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Names the one column of a function in `FROM`, unless the alias does.
fn name_column(alias: &mut Option<TableAlias>, function: &str) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new(function),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef {
            name: alias.name.clone(),
            data_type: None,
        });
    }
}

/// Several lists side by side: each column goes by the function's name.
fn name_columns(alias: &mut Option<TableAlias>, count: usize) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new("unnest"),
        columns: Vec::new(),
        at: None,
    });
    for at in alias.columns.len()..count {
        alias.columns.push(TableAliasColumnDef {
            name: Ident::with_quote('"', numbered("unnest", at)),
            data_type: None,
        });
    }
}

/// A set-returning function in `ORDER BY` is the column of the select list that is the same.
fn sorted_by_rows(query: &mut Query) -> Result<()> {
    let Some(OrderBy {
        kind: OrderByKind::Expressions(keys),
        ..
    }) = &mut query.order_by
    else {
        return Ok(());
    };
    let items = select_list(&query.body).unwrap_or_default();
    for key in keys {
        let Expr::Function(call) = &key.expr else {
            continue;
        };
        if !is_series(call) && !is_unnest(call) {
            continue;
        }
        let same = items.iter().position(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                *expr == key.expr
            }
            _ => false,
        });
        let Some(at) = same else {
            return Err(Error::unsupported(
                "set-returning functions in ORDER BY are not supported",
                "select them under a name and sort by it",
            ));
        };
        let place = Value::Number((at + 1).to_string(), false);
        key.expr = Expr::Value(ValueWithSpan::from(place));
    }
    Ok(())
}

fn is_unnest(call: &Function) -> bool {
    parts(&call.name)
        .last()
        .is_some_and(|name| name == "unnest")
}

fn is_series(call: &Function) -> bool {
    parts(&call.name).last().is_some_and(|name| name == NAME)
}

/// `unnest(call)`.
fn unnested(call: &Function) -> Function {
    let mut outer = call.clone();
    outer.name = ObjectName::from(vec![Ident::new("unnest")]);
    if let FunctionArguments::List(list) = &mut outer.args {
        let inner = FunctionArgExpr::Expr(Expr::Function(call.clone()));
        list.args = vec![FunctionArg::Unnamed(inner)];
        list.clauses.clear();
    }
    outer
}
