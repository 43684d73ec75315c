//! Set-returning functions. In a select list, `SELECT generate_series(1, 3)` gives three rows: the
//! planner's function of that name gives one list, which is unnested here. In `FROM`, the one column
//! of `generate_series` or `unnest` is named as its alias, or else as the function.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Select,
    SelectItem, TableAlias, TableAliasColumnDef, TableFactor, VisitMut, VisitorMut,
};

use super::words::parts;

const NAME: &str = "generate_series";

/// Rewrites them in place, in any syntax tree.
pub(super) fn rewrite(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut SetReturning);
}

struct SetReturning;

impl VisitorMut for SetReturning {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
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
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                alias,
                with_ordinality: false,
                ..
            }
            | TableFactor::Function { name, alias, .. } => {
                if parts(name).last().is_some_and(|name| name == NAME) {
                    name_column(alias, NAME);
                }
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_ordinality: false,
                ..
            } if array_exprs.len() == 1 => name_column(alias, "unnest"),
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
