//! Names of result columns: what PostgreSQL calls an expression without an alias, each name once
//! per query, since the planner takes no name twice.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Select, SelectItem, SelectItemQualifiedWildcardKind, VisitMut, VisitorMut,
};

use super::{build, scope};
use crate::dialect::column_names::{self, numbered};
use crate::system::shapes::Shape;

/// Gives every unnamed expression its name and makes repeated ones distinct.
pub(super) fn name_columns(select: &mut Select) {
    expand_wildcards(select);
    let mut taken = HashSet::new();
    for item in &mut select.projection {
        let (name, expr, named) = match item {
            SelectItem::UnnamedExpr(expr) => (output_name(expr), expr, false),
            SelectItem::ExprWithAlias { expr, alias } => (scope::folded(alias), expr, true),
            _ => continue,
        };
        // columns of two tables may share a name; with any other column they may not
        let own = match &*expr {
            Expr::CompoundIdentifier(path) if !named => {
                let path: Vec<String> = path.iter().map(scope::folded).collect();
                Some(path.join("."))
            }
            _ => None,
        };
        let n = (0..)
            .find(|n| {
                is_free(
                    &taken,
                    own.as_ref().filter(|_| *n == 0),
                    &numbered(&name, *n),
                )
            })
            .unwrap_or_default();
        let plain = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        taken.insert((own.filter(|_| n == 0), numbered(&name, n)));
        if n == 0 && (named || plain) {
            continue;
        }
        let expr = super::casts::take(expr);
        let alias = Ident::with_quote('"', numbered(&name, n));
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
}

/// Names given so far, each with the table column that it is, if it is one.
type Taken = HashSet<(Option<String>, String)>;

fn is_free(taken: &Taken, own: Option<&String>, name: &str) -> bool {
    taken
        .iter()
        .filter(|(_, other)| other == name)
        .all(|(other, _)| own.is_some() && other.is_some() && other.as_ref() != own)
}

/// What PostgreSQL calls the column.
fn output_name(expr: &Expr) -> String {
    column_names::of(expr).unwrap_or_else(|| "?column?".to_owned())
}

/// Writes out `t.*` and `*` over system tables where another column of the query would clash with
/// one of theirs (`SELECT t.oid, t.*`).
fn expand_wildcards(select: &mut Select) {
    if select.projection.len() < 2 {
        return;
    }
    let mut items = Vec::new();
    for item in std::mem::take(&mut select.projection) {
        match &item {
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let qualifier = scope::parts(name).pop().unwrap_or_default();
                match shape_of(select, &qualifier) {
                    Some(shape) => expand(shape, &qualifier, &mut items),
                    None => items.push(item),
                }
            }
            SelectItem::Wildcard(_) => match single_table(select) {
                Some((shape, qualifier)) => expand(shape, &qualifier, &mut items),
                None => items.push(item),
            },
            _ => items.push(item),
        }
    }
    select.projection = items;
}

fn expand(shape: &Shape, qualifier: &str, items: &mut Vec<SelectItem>) {
    items.extend(shape.columns.iter().map(|column| {
        let path = vec![
            Ident::with_quote('"', qualifier),
            Ident::with_quote('"', column.name),
        ];
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path))
    }));
}

fn shape_of(select: &Select, qualifier: &str) -> Option<&'static Shape> {
    select
        .from
        .iter()
        .flat_map(|f| std::iter::once(&f.relation).chain(f.joins.iter().map(|j| &j.relation)))
        .find_map(|table| {
            let shape = scope::system_table(table)?;
            (scope::table_name(table)? == qualifier).then_some(shape)
        })
}

fn single_table(select: &Select) -> Option<(&'static Shape, String)> {
    let [from] = &select.from[..] else {
        return None;
    };
    let shape = scope::system_table(&from.relation).filter(|_| from.joins.is_empty())?;
    Some((shape, scope::table_name(&from.relation)?))
}

/// `t.tableoid` is the oid of the table `t` stands for.
pub(super) fn table_oids(select: &mut Select) {
    struct TableOids(Vec<(String, u32)>);
    impl VisitorMut for TableOids {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let found = match &*expr {
                Expr::CompoundIdentifier(path) => match &path[..] {
                    [table, column] if scope::folded(column) == "tableoid" => {
                        let table = scope::folded(table);
                        self.0.iter().find(|(name, _)| *name == table)
                    }
                    _ => None,
                },
                _ => None,
            };
            if let Some((_, oid)) = found {
                *expr = build::number(*oid);
            }
            ControlFlow::Continue(())
        }
    }
    let tables = select
        .from
        .iter()
        .flat_map(|f| std::iter::once(&f.relation).chain(f.joins.iter().map(|j| &j.relation)))
        .filter_map(|t| Some((scope::table_name(t)?, scope::system_table(t)?.oid)))
        .collect();
    let _ = select.visit(&mut TableOids(tables));
}
