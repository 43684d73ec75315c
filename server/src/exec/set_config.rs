//! `set_config(name, value, is_local)` in a select list: `SET` for clients that only run queries.

use std::ops::ControlFlow;

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query,
    Value, VisitMut, VisitorMut,
};

use super::{Run, set};
use crate::dialect::words::parts;
use crate::error::{Error, Result, SqlState};

/// Puts the new values in the place of the calls.
pub(super) fn put_values(query: &mut Query) -> Result<()> {
    walk(query, &mut |_| Ok(()))
}

/// Sets what the calls say and puts the new values in their place.
///
/// # Errors
/// As `SET`; 0A000 for names and values that the query would have to compute.
pub(super) fn perform(run: &Run, query: &mut Query) -> Result<()> {
    walk(query, &mut |call| {
        let [name, value, local] = arguments(call)?;
        if literal(run, local)?.is_some_and(|l| matches!(l.as_str(), "t" | "true" | "on" | "1")) {
            return Err(Error::unsupported(
                "set_config for a transaction is not supported",
                "use set_config(name, value, false), and RESET afterwards",
            ));
        }
        let (Some(name), Some(value)) = (literal(run, name)?, literal(run, value)?) else {
            return Err(Error::refused(
                SqlState("22004"),
                "the name and value of a setting must not be null",
            ));
        };
        let session = run.session()?;
        set::change(&session, &name, &value)
    })
}

fn walk(query: &mut Query, each: &mut dyn FnMut(&Function) -> Result<()>) -> Result<()> {
    match VisitMut::visit(query, &mut Calls { each }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct Calls<'a> {
    each: &'a mut dyn FnMut(&Function) -> Result<()>,
}

impl VisitorMut for Calls<'_> {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Function(call) = expr else {
            return ControlFlow::Continue(());
        };
        let name = parts(&call.name);
        let name: Vec<&str> = name.iter().map(String::as_str).collect();
        if !matches!(
            name.as_slice(),
            ["set_config"] | ["pg_catalog", "set_config"]
        ) {
            return ControlFlow::Continue(());
        }
        let done = (self.each)(call).and_then(|()| Ok(arguments(call)?[1].clone()));
        match done {
            Err(e) => ControlFlow::Break(e),
            Ok(value) => {
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(value),
                    data_type: DataType::Text,
                    array: false,
                    format: None,
                };
                ControlFlow::Continue(())
            }
        }
    }
}

fn arguments(call: &Function) -> Result<[&Expr; 3]> {
    let FunctionArguments::List(list) = &call.args else {
        return Err(not_these());
    };
    let given: Vec<&Expr> = list
        .args
        .iter()
        .filter_map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect();
    given.try_into().map_err(|_| not_these())
}

fn not_these() -> Error {
    Error::refused(
        SqlState::UNDEFINED_FUNCTION,
        "set_config takes a name, a value and whether it is local",
    )
}

/// The text of a literal or a parameter; `None` for NULL.
fn literal(run: &Run, expr: &Expr) -> Result<Option<String>> {
    let computed = || {
        Error::unsupported(
            "set_config with computed arguments is not supported",
            "give it literals or parameters",
        )
    };
    match expr {
        Expr::Cast { expr, .. } | Expr::Nested(expr) => literal(run, expr),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) | Value::Number(s, _) => {
                Ok(Some(s.clone()))
            }
            Value::Boolean(b) => Ok(Some(b.to_string())),
            Value::Null => Ok(None),
            Value::Placeholder(name) => {
                let at = name.trim_start_matches('$').parse::<usize>().ok();
                let given = at.and_then(|n| run.params.get(n.checked_sub(1)?));
                match given {
                    Some(ScalarValue::Utf8(text)) => Ok(text.clone()),
                    Some(other) if other.is_null() => Ok(None),
                    Some(other) => Ok(Some(other.to_string())),
                    None => Err(Error::refused(
                        SqlState::UNDEFINED_PARAMETER,
                        format!("there is no parameter {name}"),
                    )),
                }
            }
            _ => Err(computed()),
        },
        _ => Err(computed()),
    }
}
