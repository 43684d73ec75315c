//! Casts to PostgreSQL's own types.
//!
//! A value of type `regclass` compares as a number and prints as a name. Here a cast to it is the
//! number, and the name where it is cast on to text or is a result column itself.

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType, ExactNumberInfo, Expr, ObjectName, Select, SelectItem, Value,
};

use super::{build, scope};

/// The types whose values stand for names.
const REG: [&str; 6] = [
    "regclass",
    "regtype",
    "regproc",
    "regprocedure",
    "regnamespace",
    "regrole",
];

/// The last part of a name, in lower case unless it is quoted.
pub(super) fn last_name(name: &ObjectName) -> String {
    scope::parts(name).pop().unwrap_or_default()
}

/// Rewrites one cast, before what is inside it is visited.
pub(super) fn rewrite(expr: &mut Expr) {
    let Expr::Cast {
        expr: inner,
        data_type,
        ..
    } = expr
    else {
        return;
    };
    if let Some(kind) = reg(data_type) {
        if let Some(name) = function_name(kind, inner) {
            *expr = name;
            return;
        }
        let inner = take(inner);
        *expr = build::call("reg_oid", vec![build::text(kind), inner]);
        return;
    }
    if is_text(data_type) {
        if let Some(printed) = printed(inner) {
            *expr = printed;
            return;
        }
        // keeps lengths of `varchar(n)`, which are no text of ours
        if matches!(data_type, DataType::Custom(..)) {
            *data_type = DataType::Text;
        }
        return;
    }
    match data_type {
        // one character: what kinds and types of catalogs are
        DataType::Char(None) | DataType::Character(None) => *data_type = DataType::Text,
        DataType::Custom(name, _) => match last_name(name).as_str() {
            "oid" | "xid" | "cid" => {
                let kind = cast_kind(inner).unwrap_or("regclass");
                let inner = match take(inner) {
                    Expr::Cast { expr, .. } if kind == "regproc" => *expr,
                    other => other,
                };
                *expr = build::call("reg_oid", vec![build::text(kind), inner]);
            }
            "int2" => *data_type = DataType::SmallInt(None),
            "int4" | "cardinal_number" => *data_type = DataType::Integer(None),
            "int8" => *data_type = DataType::BigInt(None),
            "bool" => *data_type = DataType::Boolean,
            "float8" => *data_type = DataType::Double(ExactNumberInfo::None),
            _ => {}
        },
        DataType::Array(element) => {
            if let Some(array) = array_cast(element_type(element), inner) {
                *expr = array;
            }
        }
        _ => {}
    }
}

/// Result columns of a `reg…` type print as names.
pub(super) fn print_reg_columns(select: &mut Select) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
            && let Some(name) = printed(expr)
        {
            *expr = name;
        }
    }
}

/// `reg_text(kind, value)` for a cast to a `reg…` type.
fn printed(expr: &mut Expr) -> Option<Expr> {
    match expr {
        Expr::Nested(inner) => printed(inner),
        Expr::Cast {
            expr: inner,
            data_type,
            ..
        } => {
            let kind = reg(data_type)?;
            let value = take(inner);
            // a name that stands for nothing is refused, so it is looked up first
            let oid = build::call("reg_oid", vec![build::text(kind), value]);
            Some(build::call("reg_text", vec![build::text(kind), oid]))
        }
        _ => None,
    }
}

fn reg(data_type: &DataType) -> Option<&'static str> {
    let name = match data_type {
        DataType::Regclass => return Some("regclass"),
        DataType::Custom(name, _) => last_name(name),
        _ => return None,
    };
    REG.into_iter().find(|reg| *reg == name)
}

/// Columns of type `regproc` are kept as names: a literal is one, without its schema.
fn function_name(kind: &str, value: &Expr) -> Option<Expr> {
    let Expr::Value(value) = value else {
        return None;
    };
    match &value.value {
        Value::SingleQuotedString(text) if kind == "regproc" => Some(build::text(
            text.strip_prefix("pg_catalog.").unwrap_or(text),
        )),
        _ => None,
    }
}

/// The `reg…` type that a cast is to.
fn cast_kind(expr: &Expr) -> Option<&'static str> {
    match expr {
        Expr::Cast { data_type, .. } => reg(data_type),
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Text | DataType::Varchar(None) | DataType::CharacterVarying(None) => true,
        DataType::Custom(name, _) => matches!(
            last_name(name).as_str(),
            "text"
                | "name"
                | "char"
                | "varchar"
                | "bpchar"
                | "sql_identifier"
                | "character_data"
                | "yes_or_no"
                | "cstring"
                | "pg_node_tree"
                | "aclitem"
        ),
        _ => false,
    }
}

fn element_type(element: &ArrayElemTypeDef) -> Option<&DataType> {
    match element {
        ArrayElemTypeDef::SquareBracket(ty, _)
        | ArrayElemTypeDef::AngleBracket(ty)
        | ArrayElemTypeDef::Parenthesis(ty) => Some(ty),
        ArrayElemTypeDef::None => None,
    }
}

/// `'{a,b}'::text[]` is an array of its elements; an array stays what it is where the element type
/// is one that only PostgreSQL has.
fn array_cast(element: Option<&DataType>, inner: &mut Expr) -> Option<Expr> {
    let element = element?;
    if let Expr::Value(value) = &*inner
        && let Value::SingleQuotedString(text) = &value.value
    {
        return super::exprs::array_literal(text);
    }
    let DataType::Custom(name, _) = element else {
        return None;
    };
    let inner = take(inner);
    let parameter = matches!(&inner, Expr::Value(v) if matches!(v.value, Value::Placeholder(_)));
    // the client has to be told what it is to send
    Some(match parameter && last_name(name) == "oid" {
        true => build::call("oid_list", vec![inner]),
        false => inner,
    })
}

pub(super) fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}
