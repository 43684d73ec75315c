//! Operators, quantified comparisons, patterns and function names.

use datafusion::sql::sqlparser::ast::{
    Array, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, TableFactor, UnaryOperator, Value,
};

use super::casts::take;
use super::{build, scope};
use crate::system::functions::parse_array;
use crate::system::shapes;

/// Rewrites one expression, after what is inside it.
pub(super) fn rewrite(expr: &mut Expr) {
    match expr {
        Expr::Collate { expr: inner, .. } => *expr = take(inner),
        Expr::Identifier(name) if is_current_schema(name) => {
            *expr = build::call("current_schema", Vec::new());
        }
        Expr::BinaryOp { left, op, right } => {
            plain_operator(op);
            function_names(left, right);
            function_names(right, left);
        }
        Expr::AnyOp {
            left,
            compare_op: BinaryOperator::Eq,
            right,
            ..
        } => {
            if let Some(any) = is_any_of(left, right) {
                *expr = any;
            }
        }
        Expr::AllOp {
            left,
            compare_op: BinaryOperator::NotEq,
            right,
        } => {
            if let Some(any) = is_any_of(left, right) {
                *expr = Expr::UnaryOp {
                    op: UnaryOperator::Not,
                    expr: Box::new(any),
                };
            }
        }
        Expr::Like {
            pattern,
            escape_char,
            ..
        }
        | Expr::ILike {
            pattern,
            escape_char,
            ..
        } => escape(pattern, escape_char),
        Expr::Function(function) => {
            if let Some(replaced) = call(function) {
                *expr = replaced;
            }
        }
        _ => {}
    }
}

/// A function that is written as a plain name.
pub(super) fn is_current_schema(name: &Ident) -> bool {
    name.quote_style.is_none() && name.value.eq_ignore_ascii_case("current_schema")
}

/// `OPERATOR(pg_catalog.~)` is `~`.
fn plain_operator(op: &mut BinaryOperator) {
    let BinaryOperator::PGCustomBinaryOperator(name) = &*op else {
        return;
    };
    *op = match name.last().map(String::as_str) {
        Some("~") => BinaryOperator::PGRegexMatch,
        Some("~*") => BinaryOperator::PGRegexIMatch,
        Some("!~") => BinaryOperator::PGRegexNotMatch,
        Some("!~*") => BinaryOperator::PGRegexNotIMatch,
        Some("~~") => BinaryOperator::PGLikeMatch,
        Some("!~~") => BinaryOperator::PGNotLikeMatch,
        Some("=") => BinaryOperator::Eq,
        Some("<>") => BinaryOperator::NotEq,
        Some("<") => BinaryOperator::Lt,
        Some(">") => BinaryOperator::Gt,
        Some("<=") => BinaryOperator::LtEq,
        Some(">=") => BinaryOperator::GtEq,
        Some("||") => BinaryOperator::StringConcat,
        _ => return,
    };
}

/// Columns of type `regproc` are kept as names, so they are compared as names.
fn function_names(column: &Expr, other: &mut Expr) {
    if !is_regproc(column) {
        return;
    }
    match other {
        Expr::Value(value) if value.value == Value::Number("0".to_owned(), false) => {
            *other = build::text("-");
        }
        // joins with pg_proc
        Expr::Identifier(name) if scope::folded(name) == "oid" => *name = Ident::new("proname"),
        Expr::CompoundIdentifier(path) => {
            if let Some(name) = path.last_mut().filter(|n| scope::folded(n) == "oid") {
                *name = Ident::new("proname");
            }
        }
        _ => {}
    }
}

fn is_regproc(expr: &Expr) -> bool {
    let name = match expr {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(path) => match path.last() {
            Some(name) => name,
            None => return false,
        },
        _ => return false,
    };
    shapes::is_regproc(&scope::folded(name))
}

/// `left = ANY (right)`: a list where the elements are written out, else a function.
fn is_any_of(left: &mut Expr, right: &mut Expr) -> Option<Expr> {
    let mut array = right;
    while let Expr::Nested(inner) = array {
        array = inner;
    }
    if matches!(array, Expr::Subquery(_)) {
        return None;
    }
    let literal = match &*array {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => array_literal(text),
            _ => None,
        },
        _ => None,
    };
    let array = literal.unwrap_or_else(|| take(array));
    let left = take(left);
    Some(match array {
        Expr::Array(Array { elem, .. }) if !elem.is_empty() => Expr::InList {
            expr: Box::new(left),
            list: elem,
            negated: false,
        },
        array => build::call("any_of", vec![left, array]),
    })
}

/// The array that `{a,b}` stands for.
pub(super) fn array_literal(text: &str) -> Option<Expr> {
    let items = parse_array(text)?;
    let elem = items
        .iter()
        .map(|item| match item {
            Some(item) => build::text(item),
            None => Expr::Value(Value::Null.into()),
        })
        .collect();
    Some(Expr::Array(Array { elem, named: true }))
}

/// The planner knows the escape character `\` only.
fn escape(
    pattern: &mut Box<Expr>,
    escape_char: &mut Option<datafusion::sql::sqlparser::ast::ValueWithSpan>,
) {
    let Some(value) = &*escape_char else {
        return;
    };
    let Value::SingleQuotedString(character) = &value.value else {
        return;
    };
    if character.chars().count() != 1 {
        return;
    }
    let character = build::text(character);
    *escape_char = None;
    if character != build::text("\\") {
        let args = vec![take(pattern), character, build::text("\\")];
        **pattern = build::call("replace", args);
    }
}

fn call(function: &mut Function) -> Option<Expr> {
    let parts = scope::parts(&function.name);
    if let [schema, name] = &parts[..]
        && schema == "pg_catalog"
    {
        function.name = vec![Ident::new(name)].into();
    }
    let name = parts.last()?.as_str();
    match name {
        // written without parentheses
        "current_user" | "session_user" | "user" | "current_role" | "current_catalog"
        | "current_schema"
            if function.args == FunctionArguments::None =>
        {
            Some(build::call(name, Vec::new()))
        }
        "bpchar" => arguments(function)?.first().map(|value| (*value).clone()),
        "array_upper" => {
            function.name = vec![Ident::new("array_length")].into();
            Some(build::cast(
                Expr::Function(function.clone()),
                DataType::BigInt(None),
            ))
        }
        // arrays begin at 1
        "array_lower" => {
            let args = arguments(function)?;
            let length = build::call("array_length", args.into_iter().cloned().collect());
            let one = build::call("least", vec![length, build::number(1)]);
            Some(build::cast(one, DataType::BigInt(None)))
        }
        "coalesce" => {
            let args = arguments(function)?;
            let [value, default] = &args[..] else {
                return None;
            };
            (**default == build::text("{}"))
                .then(|| build::call("array_or_empty", vec![(*value).clone()]))
        }
        "array" => unnested(function),
        _ => None,
    }
}

/// `ARRAY(SELECT x FROM unnest(a) x)` and `ARRAY(SELECT 'text' || x FROM unnest(a) x)`.
fn unnested(function: &Function) -> Option<Expr> {
    let FunctionArguments::Subquery(query) = &function.args else {
        return None;
    };
    let select = query.body.as_select()?;
    let [from] = &select.from[..] else {
        return None;
    };
    let (array, alias) = match &from.relation {
        TableFactor::UNNEST {
            array_exprs, alias, ..
        } => (array_exprs.first()?.clone(), alias.as_ref()?),
        TableFactor::Table {
            name,
            alias,
            args: Some(args),
            ..
        } if scope::parts(name).last()? == "unnest" => {
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(array))] = &args.args[..] else {
                return None;
            };
            (array.clone(), alias.as_ref()?)
        }
        _ => return None,
    };
    let element = alias.columns.first().map_or(&alias.name, |c| &c.name);
    let is_element = |e: &Expr| *e == Expr::Identifier(element.clone());
    let [item] = &select.projection[..] else {
        return None;
    };
    if select.selection.is_some() || !from.joins.is_empty() {
        return None;
    }
    match scope::item_expr(item)? {
        e if is_element(e) => Some(build::call("array_or_empty", vec![array])),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::StringConcat,
            right,
        } if is_element(right) && matches!(**left, Expr::Value(_)) => {
            Some(build::call("array_prefix", vec![(**left).clone(), array]))
        }
        _ => None,
    }
}

/// The arguments of a call that names none of them.
fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    list.args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect()
}

/// Table functions that never give rows here become tables without rows.
pub(super) fn table_function(table: &mut TableFactor) {
    let TableFactor::Table {
        name,
        alias,
        args: Some(_),
        ..
    } = table
    else {
        return;
    };
    let parts = scope::parts(name);
    let Some(function) = parts.last() else {
        return;
    };
    let empty = match function.as_str() {
        "pg_partition_ancestors" => "SELECT CAST(NULL AS BIGINT) AS relid WHERE false",
        "pg_show_all_settings" => "SELECT * FROM pg_catalog.pg_settings",
        "pg_get_keywords" => {
            "SELECT CAST(NULL AS TEXT) AS word, CAST(NULL AS TEXT) AS catcode WHERE false"
        }
        _ => {
            if parts.len() == 2 && parts[0] == "pg_catalog" {
                *name = vec![Ident::new(function)].into();
            }
            return;
        }
    };
    let label = alias
        .as_ref()
        .map_or_else(|| function.clone(), |a| a.name.value.clone());
    if let Some(query) = build::parse(empty) {
        *table = build::derived(query, &label);
    }
}
