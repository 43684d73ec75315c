//! Names of result columns: what PostgreSQL calls an expression without an alias, each name once
//! per query, since the planner takes no name twice.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Select, SelectItem, SelectItemQualifiedWildcardKind,
};

use super::scope;
use crate::system::shapes::Shape;

/// Gives every unnamed expression its name and makes repeated ones distinct.
pub(super) fn name_columns(select: &mut Select) {
    expand_wildcards(select);
    let mut taken = HashSet::new();
    for item in &mut select.projection {
        let (name, expr) = match item {
            SelectItem::UnnamedExpr(expr) => (output_name(expr), expr),
            SelectItem::ExprWithAlias { expr, alias } => (alias.value.clone(), expr),
            _ => continue,
        };
        // the same name of two tables is two columns to the planner
        let key = match &*expr {
            Expr::CompoundIdentifier(_) if is_unnamed(expr, &name) => expr.to_string(),
            _ => name.clone(),
        };
        let mut unique = key.clone();
        let mut n = 0;
        while !taken.insert(unique.clone()) {
            n += 1;
            unique = format!("{key}_{n}");
        }
        let plain = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        if n == 0 && plain {
            continue;
        }
        let name = if n == 0 { name } else { format!("{name}_{n}") };
        let expr = super::casts::take(expr);
        let alias = Ident::with_quote('"', name);
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
}

fn is_unnamed(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::CompoundIdentifier(path) if path.last().is_some_and(|p| p.value == name))
}

/// What PostgreSQL calls the column.
fn output_name(expr: &Expr) -> String {
    own_name(expr).unwrap_or_else(|| "?column?".to_owned())
}

fn own_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(name.value.clone()),
        Expr::CompoundIdentifier(path) => path.last().map(|p| p.value.clone()),
        Expr::Function(function) => scope::parts(&function.name).pop(),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => own_name(inner),
        Expr::Cast {
            expr, data_type, ..
        } => own_name(expr).or_else(|| {
            let name = data_type.to_string().to_lowercase();
            name.rsplit('.').next().map(str::to_owned)
        }),
        Expr::Case { else_result, .. } => else_result
            .as_ref()
            .and_then(|e| own_name(e))
            .or_else(|| Some("case".to_owned())),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Subquery(query) => {
            let item = query.body.as_select()?.projection.first()?;
            match item {
                SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
                other => own_name(scope::item_expr(other)?),
            }
        }
        Expr::CompoundFieldAccess { root, .. } => own_name(root),
        _ => None,
    }
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
