//! Set-returning functions in a select list: `SELECT generate_series(1, 3)` gives three rows. The
//! planner's function of that name gives one list, which is unnested here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Select,
    SelectItem, VisitMut, VisitorMut,
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
