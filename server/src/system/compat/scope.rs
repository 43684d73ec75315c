//! Which tables a SELECT reads and which of them a column name belongs to.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, Visit,
    Visitor,
};

use crate::system::shapes::{self, Shape};

/// The parts of a name; unquoted ones in lower case.
pub(super) fn parts(name: &ObjectName) -> Vec<String> {
    name.0
        .iter()
        .filter_map(|part| part.as_ident())
        .map(folded)
        .collect()
}

/// An identifier as SQL reads it: in lower case unless it is quoted.
pub(super) fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The expression of a result column.
pub(super) fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// The system table a table factor names.
pub(super) fn system_table(table: &TableFactor) -> Option<&'static Shape> {
    let TableFactor::Table {
        name, args: None, ..
    } = table
    else {
        return None;
    };
    match &parts(name)[..] {
        [name] => shapes::find("pg_catalog", name),
        [.., schema, name] => shapes::find(schema, name),
        [] => None,
    }
}

/// One table that a SELECT reads.
#[derive(Debug)]
pub(super) struct Table {
    /// The name its columns are qualified with.
    pub(super) name: String,
    /// Its columns, when they are known.
    columns: Option<Vec<String>>,
}

/// The tables of one FROM clause.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) tables: Vec<Table>,
}

impl Scope {
    pub(super) fn of(select: &Select) -> Self {
        let mut tables = Vec::new();
        for from in &select.from {
            add(from, &mut tables);
        }
        Self { tables }
    }

    /// Whether the column belongs to one of these tables. An unqualified name does when one of them
    /// has it, or may have it.
    pub(super) fn owns(&self, column: &Expr) -> bool {
        match column {
            Expr::Identifier(name) => self.tables.iter().any(|t| {
                t.columns
                    .as_ref()
                    .is_none_or(|columns| columns.contains(&folded(name)))
            }),
            Expr::CompoundIdentifier(path) => {
                // table.column or schema.table.column
                let table = path.len().checked_sub(2).and_then(|i| path.get(i));
                table.is_some_and(|t| self.tables.iter().any(|own| own.name == folded(t)))
            }
            _ => false,
        }
    }

    /// Whether all columns in the expression belong to these tables.
    pub(super) fn owns_all(&self, expr: &Expr) -> bool {
        columns(expr).iter().all(|c| self.owns(c))
    }

    /// Whether none does.
    pub(super) fn owns_none(&self, expr: &Expr) -> bool {
        !columns(expr).iter().any(|c| self.owns(c))
    }
}

fn add(from: &TableWithJoins, tables: &mut Vec<Table>) {
    let joined = from.joins.iter().map(|j| &j.relation);
    for table in std::iter::once(&from.relation).chain(joined) {
        match table {
            TableFactor::NestedJoin {
                table_with_joins, ..
            } => add(table_with_joins, tables),
            other => tables.push(describe(other)),
        }
    }
}

/// The name a table's columns are qualified with.
pub(super) fn table_name(table: &TableFactor) -> Option<String> {
    let (alias, own_name) = match table {
        TableFactor::Table { alias, name, .. } => (alias, parts(name).pop()),
        TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. } => (alias, None),
        _ => (&None, None),
    };
    alias.as_ref().map(|a| folded(&a.name)).or(own_name)
}

fn describe(table: &TableFactor) -> Table {
    let name = table_name(table).unwrap_or_default();
    let columns = match table {
        TableFactor::Derived { subquery, .. } => derived_columns(&subquery.body),
        other => system_table(other)
            .map(|shape| shape.columns.iter().map(|c| c.name.to_owned()).collect()),
    };
    Table { name, columns }
}

fn derived_columns(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => select
            .projection
            .iter()
            .map(|item| match item {
                SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(folded(name)),
                SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path)) => path.last().map(folded),
                _ => None,
            })
            .collect(),
        SetExpr::Query(query) => derived_columns(&query.body),
        SetExpr::SetOperation { left, .. } => derived_columns(left),
        _ => None,
    }
}

/// All column names in an expression, also in subqueries of it.
pub(super) fn columns(expr: &Expr) -> Vec<Expr> {
    let mut found = Columns(Vec::new());
    let _ = expr.visit(&mut found);
    found.0
}

struct Columns(Vec<Expr>);

impl Visitor for Columns {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            self.0.push(expr.clone());
        }
        ControlFlow::Continue(())
    }
}
