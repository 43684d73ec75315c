//! Spellings that PostgreSQL's own parser takes as calls of functions: `AT TIME ZONE`, `LIKE … ESCAPE`,
//! `SIMILAR TO`, `SUBSTRING … FROM 'pattern'`, `json_agg`, `json_object_agg`, `make_interval` with named arguments;
//! and the operators `|/`, `||/`, `@` and `~`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, DuplicateTreatment, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident,
    Interval, ObjectName, OrderByExpr, OrderByOptions, UnaryOperator, Value, ValueWithSpan,
    VisitMut, VisitorMut,
};

use super::words::parts;

/// Rewrites them in place, in any syntax tree.
pub(super) fn rewrite(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Spellings);
}

struct Spellings;

impl VisitorMut for Spellings {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => {
                let args = vec![(**time_zone).clone(), (**timestamp).clone()];
                *expr = call("timezone", args);
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
            } => {
                if let Some(escape) = escape_char.take() {
                    let args = vec![(**pattern).clone(), Expr::Value(escape)];
                    **pattern = call("like_escape", args);
                }
            }
            Expr::SimilarTo {
                negated,
                expr: value,
                pattern,
                escape_char,
            } => {
                let mut args = vec![(**pattern).clone()];
                args.extend(escape_char.take().map(Expr::Value));
                *expr = Expr::BinaryOp {
                    left: value.clone(),
                    op: match negated {
                        true => BinaryOperator::PGRegexNotMatch,
                        false => BinaryOperator::PGRegexMatch,
                    },
                    right: Box::new(call("similar_to_escape", args)),
                };
            }
            Expr::Substring {
                expr: text,
                substring_from: Some(pattern),
                substring_for: None,
                ..
            } if is_text(pattern) => {
                let args = vec![(**text).clone(), (**pattern).clone()];
                *expr = call(SUBSTRING, args);
            }
            Expr::UnaryOp { op, expr: value } => {
                let double = |value: &Expr| Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(value.clone()),
                    data_type: DataType::DoublePrecision,
                    array: false,
                    format: None,
                };
                if *op == UnaryOperator::BitwiseNot {
                    let one = Expr::Value(Value::Number("1".to_owned(), false).into());
                    *expr = Expr::BinaryOp {
                        left: value.clone(),
                        op: BinaryOperator::PGBitwiseXor,
                        right: Box::new(Expr::UnaryOp {
                            op: UnaryOperator::Minus,
                            expr: Box::new(one),
                        }),
                    };
                    return ControlFlow::Continue(());
                }
                let computed = match op {
                    UnaryOperator::PGSquareRoot => call("sqrt", vec![double(value)]),
                    UnaryOperator::PGCubeRoot => call("cbrt", vec![double(value)]),
                    UnaryOperator::PGAbs => call("abs", vec![(**value).clone()]),
                    _ => return ControlFlow::Continue(()),
                };
                // an operator's column has no name, a function's has
                (*op, **value) = (UnaryOperator::Plus, computed);
            }
            // the planner's own reading of intervals knows fewer forms
            Expr::Interval(interval) => {
                if let Some(read) = read_interval(interval) {
                    *expr = read;
                }
            }
            Expr::Function(function) => {
                let name = parts(&function.name).pop().unwrap_or_default();
                if matches!(name.as_str(), "array_agg" | "json_agg" | "jsonb_agg") {
                    sort_distinct(&mut function.args);
                }
                match name.as_str() {
                    "json_agg" | "jsonb_agg" => *expr = gathered(&name, function),
                    "json_object_agg" | "jsonb_object_agg" => {
                        if let Some(pairs) = gathered_pairs(&name, function) {
                            *expr = pairs;
                        }
                    }
                    "make_interval" => in_order(&mut function.args),
                    _ => {}
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `SUBSTRING` with a pattern.
pub(super) const SUBSTRING: &str = "substring_matching";

fn is_text(expr: &Expr) -> bool {
    let Expr::Value(value) = expr else {
        return false;
    };
    matches!(
        value.value,
        Value::SingleQuotedString(_)
            | Value::EscapedStringLiteral(_)
            | Value::DollarQuotedString(_)
    )
}

/// `name(args)`.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args
                .into_iter()
                .map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)))
                .collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// A text without fields that names fractions of units, as a cast.
fn read_interval(interval: &Interval) -> Option<Expr> {
    let Interval {
        value,
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    } = interval
    else {
        return None;
    };
    match value.as_ref() {
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(text),
            ..
        }) if !is_simple(text) => Some(Expr::Cast {
            kind: CastKind::Cast,
            expr: value.clone(),
            data_type: DataType::Interval {
                fields: None,
                precision: None,
            },
            array: false,
            format: None,
        }),
        _ => None,
    }
}

/// Numbers with units, which the planner reads as PostgreSQL does and keeps as a literal.
fn is_simple(text: &str) -> bool {
    let simple = |c: char| c == ' ' || (c.is_ascii_alphanumeric() && !matches!(c, 'P' | 'w' | 'c'));
    text.chars().all(simple) && text.contains(|c: char| c.is_ascii_alphabetic())
}

/// PostgreSQL finds distinct values by sorting them.
fn sort_distinct(args: &mut FunctionArguments) {
    let FunctionArguments::List(list) = args else {
        return;
    };
    let sorted = |c: &FunctionArgumentClause| matches!(c, FunctionArgumentClause::OrderBy(_));
    if list.duplicate_treatment != Some(DuplicateTreatment::Distinct)
        || list.clauses.iter().any(sorted)
    {
        return;
    }
    if let [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))] = list.args.as_slice() {
        let key = OrderByExpr {
            expr: value.clone(),
            options: OrderByOptions::default(),
            with_fill: None,
        };
        list.clauses
            .push(FunctionArgumentClause::OrderBy(vec![key]));
    }
}

/// `json_agg(…)` writes what `array_agg(…)` gathers: JSON of each value, as lists do not know what their elements
/// are. Distinct ones are gathered as they are, by their order.
fn gathered(name: &str, function: &Function) -> Expr {
    let mut inner = function.clone();
    inner.name = ObjectName::from(vec![Ident::new("array_agg")]);
    let written = match &mut inner.args {
        FunctionArguments::List(list) if list.duplicate_treatment.is_none() => {
            list.args.iter_mut().all(write_json)
        }
        _ => false,
    };
    let mut args = vec![Expr::Function(inner)];
    if written {
        args.push(Expr::Value(Value::Boolean(true).into()));
    }
    call(name, args)
}

/// A value as JSON.
fn write_json(arg: &mut FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) = arg else {
        return false;
    };
    *value = call("to_json", vec![value.clone()]);
    true
}

/// `json_object_agg(key, value)` writes what two calls of `array_agg` gather side by side.
fn gathered_pairs(name: &str, function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    if list.args.len() != 2 || list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
        return None;
    }
    let mut pair = list.args.clone();
    if !pair.iter_mut().skip(1).all(write_json) {
        return None;
    }
    let lists = pair.iter().map(|arg| {
        let mut inner = function.clone();
        inner.name = ObjectName::from(vec![Ident::new("array_agg")]);
        if let FunctionArguments::List(list) = &mut inner.args {
            list.args = vec![arg.clone()];
        }
        Expr::Function(inner)
    });
    Some(call(name, lists.collect()))
}

const PARTS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// Arguments by their place; those that are not given are zero.
fn in_order(args: &mut FunctionArguments) {
    let FunctionArguments::List(list) = args else {
        return;
    };
    let named = list
        .args
        .iter()
        .any(|a| !matches!(a, FunctionArg::Unnamed(_)));
    if !named {
        return;
    }
    let zero = || {
        let value = ValueWithSpan::from(Value::Number("0".to_owned(), false));
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))
    };
    let mut all: Vec<FunctionArg> = PARTS.iter().map(|_| zero()).collect();
    for (at, arg) in list.args.iter().enumerate() {
        let (place, value) = match arg {
            FunctionArg::Named { name, arg, .. } => {
                match PARTS
                    .iter()
                    .position(|p| name.value.eq_ignore_ascii_case(p))
                {
                    Some(place) => (place, arg),
                    None => return,
                }
            }
            FunctionArg::Unnamed(arg) => (at, arg),
            FunctionArg::ExprNamed {
                name: Expr::Identifier(name),
                arg,
                ..
            } => match PARTS
                .iter()
                .position(|p| name.value.eq_ignore_ascii_case(p))
            {
                Some(place) => (place, arg),
                None => return,
            },
            FunctionArg::ExprNamed { .. } => return,
        };
        match all.get_mut(place) {
            Some(slot) => *slot = FunctionArg::Unnamed(value.clone()),
            None => return,
        }
    }
    list.args = all;
}
