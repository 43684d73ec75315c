//! What PostgreSQL calls a column without an alias.

use catalog::SqlType;
use datafusion::sql::sqlparser::ast::{DataType, Expr, SelectItem, SetExpr, TrimWhereField};

use super::data_type::sql_type;
use super::spellings::SUBSTRING;
use super::words::{fold, parts};

/// Stands before the number of a column whose name another column of the query has: the planner takes no
/// name twice. It cannot be typed by accident, and no client sees it.
const AGAIN: char = '\u{2}';

/// A name for the planner of the nth column that is called so.
pub(crate) fn numbered(name: &str, n: usize) -> String {
    match n {
        0 => name.to_owned(),
        n => format!("{name}{AGAIN}{n}"),
    }
}

/// The name that clients see.
pub(crate) fn shown(name: &str) -> &str {
    name.split_once(AGAIN).map_or(name, |(name, _)| name)
}

/// The select list that names the columns.
pub(crate) fn select_list(body: &SetExpr) -> Option<&[SelectItem]> {
    match body {
        SetExpr::Select(select) => Some(&select.projection),
        SetExpr::Query(query) => select_list(&query.body),
        SetExpr::SetOperation { left, .. } => select_list(left),
        _ => None,
    }
}

/// A column is called as the column, function or construct that it is; a cast as what it casts, or else as its
/// type. Operators have no name.
pub(crate) fn of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(fold(ident)),
        Expr::CompoundIdentifier(path) => path.last().map(fold),
        Expr::Function(f) => parts(&f.name).pop().map(|name| match name.as_str() {
            SUBSTRING => "substring".to_owned(),
            "array_or_empty" => "array".to_owned(),
            _ => name,
        }),
        Expr::Cast {
            expr, data_type, ..
        } => strong(expr).or_else(|| Some(type_name(data_type))),
        Expr::Nested(expr)
        | Expr::Collate { expr, .. }
        | Expr::CompoundFieldAccess { root: expr, .. } => of(expr),
        Expr::AtTimeZone { .. } => Some("timezone".to_owned()),
        Expr::Case { else_result, .. } => else_result
            .as_deref()
            .and_then(strong)
            .or_else(|| Some("case".to_owned())),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Tuple(_) => Some("row".to_owned()),
        Expr::Interval(_) => Some("interval".to_owned()),
        Expr::Substring { shorthand, .. } => {
            Some(if *shorthand { "substr" } else { "substring" }.to_owned())
        }
        Expr::Overlay { .. } => Some("overlay".to_owned()),
        Expr::Trim { trim_where, .. } => Some(
            match trim_where {
                Some(TrimWhereField::Leading) => "ltrim",
                Some(TrimWhereField::Trailing) => "rtrim",
                _ => "btrim",
            }
            .to_owned(),
        ),
        Expr::Ceil { .. } => Some("ceil".to_owned()),
        Expr::Floor { .. } => Some("floor".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::TypedString(typed) => Some(type_name(&typed.data_type)),
        Expr::Subquery(query) => match select_list(&query.body)?.first()? {
            SelectItem::UnnamedExpr(expr) => of(expr),
            SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
            _ => None,
        },
        _ => None,
    }
}

/// A name that is more than that of a type or of `CASE`.
fn strong(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(expr) | Expr::Collate { expr, .. } | Expr::Cast { expr, .. } => strong(expr),
        Expr::Case { else_result, .. } => else_result.as_deref().and_then(strong),
        Expr::TypedString(_) | Expr::Interval(_) => None,
        _ => of(expr),
    }
}

/// What PostgreSQL's catalog calls a type; a list goes by its elements'.
fn type_name(written: &DataType) -> String {
    let Ok(mut sql) = sql_type(written) else {
        let name = written.to_string().to_lowercase();
        let name = name.rsplit('.').next().unwrap_or_default();
        return name.trim_end_matches("[]").trim_matches('"').to_owned();
    };
    while let SqlType::Array(of) = sql {
        sql = *of;
    }
    let name = match sql {
        SqlType::Bool => "bool",
        SqlType::Int2 => "int2",
        SqlType::Int4 => "int4",
        SqlType::Int8 => "int8",
        SqlType::Float4 => "float4",
        SqlType::Float8 => "float8",
        SqlType::Numeric { .. } => "numeric",
        SqlType::Text => "text",
        SqlType::Varchar(_) => "varchar",
        SqlType::Uuid => "uuid",
        SqlType::Json => "json",
        SqlType::Jsonb => "jsonb",
        SqlType::Bytea => "bytea",
        SqlType::Date => "date",
        SqlType::Time => "time",
        SqlType::Timestamp => "timestamp",
        SqlType::Timestamptz => "timestamptz",
        SqlType::Interval => "interval",
        SqlType::Array(_) | SqlType::Record(_) => "record",
    };
    name.to_owned()
}
