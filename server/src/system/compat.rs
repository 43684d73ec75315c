//! Rewrites of statements that mention system tables, so that what PostgreSQL clients ask plans
//! here: the same meaning in forms the planner knows. Works on the syntax tree, never on text.
//!
//! Applied to statements for which [`mentions_system_tables`] holds, and to no others: a user's
//! query over their own tables is planned as it was written.
//!
//! | module | rewrites |
//! |---|---|
//! | `casts` | `::regclass`, `::oid`, `::"char"`, `pg_catalog.` types |
//! | `exprs` | operators, `= ANY`, `COLLATE`, `LIKE … ESCAPE`, function names |
//! | `empty` | queries over tables that never have rows |
//! | `known` | whole statements of clients |
//! | `lateral` | `unnest` of a column in `FROM` |
//! | `subqueries` | correlated scalar, `EXISTS` and `ARRAY` subqueries → joins |
//! | `names` | names of result columns |

mod build;
mod casts;
mod empty;
mod exprs;
mod known;
mod lateral;
mod names;
mod scope;
mod subqueries;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Ident, ObjectName, Query, Select, Statement, TableFactor, Visit, VisitMut,
    Visitor, VisitorMut,
};

use super::{SCHEMAS, shapes};

/// Whether the statement names a system schema, a `pg_…` table or function, or one of the types
/// that look names up.
pub fn mentions_system_tables(statement: &Statement) -> bool {
    statement.visit(&mut Mentions).is_break()
}

/// Rewrites the statement in place.
pub fn rewrite(statement: &mut Statement) {
    let mut rewriter = Rewriter { subqueries: 0 };
    let _ = statement.visit(&mut rewriter);
}

struct Mentions;

impl Visitor for Mentions {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        found(is_system(relation))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        found(match expr {
            Expr::Function(f) => is_system(&f.name),
            Expr::Identifier(name) => exprs::is_current_schema(name),
            Expr::Cast { data_type, .. } => match data_type {
                DataType::Regclass => true,
                DataType::Custom(name, _) => {
                    is_system(name) || casts::last_name(name).starts_with("reg")
                }
                _ => false,
            },
            _ => false,
        })
    }
}

fn found(yes: bool) -> ControlFlow<()> {
    if yes {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

fn is_system(name: &ObjectName) -> bool {
    let parts: Vec<String> = scope::parts(name);
    match &parts[..] {
        [name] => {
            name.starts_with("pg_")
                || matches!(
                    name.as_str(),
                    "version" | "format_type" | "col_description" | "obj_description"
                )
                || name.starts_with("current_")
                || matches!(
                    name.as_str(),
                    "session_user" | "user" | "to_regclass" | "to_regtype"
                )
                || name.starts_with("has_") && name.ends_with("_privilege")
        }
        [.., schema, _] => SCHEMAS.contains(&schema.as_str()),
        [] => false,
    }
}

struct Rewriter {
    /// Subqueries turned into joins so far: each gets a name of its own.
    subqueries: usize,
}

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        known::replace(query);
        empty::fold(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        // PostgreSQL looks in pg_catalog first
        if let [name] = &scope::parts(relation)[..]
            && name.starts_with("pg_")
            && shapes::find("pg_catalog", name).is_some()
        {
            *relation = vec![Ident::new("pg_catalog"), Ident::new(name)].into();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        exprs::table_function(table);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        lateral::unnest(select);
        names::name_columns(select);
        names::table_oids(select);
        casts::print_reg_columns(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        empty::constant(expr);
        casts::rewrite(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        exprs::rewrite(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        subqueries::to_joins(select, &mut self.subqueries);
        ControlFlow::Continue(())
    }
}
