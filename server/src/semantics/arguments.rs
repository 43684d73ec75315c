//! Calls whose arguments the planner reads otherwise: units of `date_trunc`, and functions of text that are
//! given something else. The planner would write it as text; PostgreSQL has
//! another function for bytes, or none.

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, lit};

use super::functions;
use super::types::{Family, family, name};
use crate::error::{Error, SqlState};

/// Functions with the arguments, from the first on, that are texts; and what does the same with bytes. Others
/// (`substr`, `strpos`, …) are refused by the planner itself.
const OF_TEXT: [(&str, usize, Option<&str>); 8] = [
    ("character_length", 1, Some("byte_length")),
    ("overlay", 2, Some("byte_overlay")),
    ("reverse", 1, None),
    ("left", 1, None),
    ("right", 1, None),
    ("lpad", 1, None),
    ("rpad", 1, None),
    ("translate", 3, None),
];

/// The call, or that of the function of bytes.
///
/// # Errors
/// 42883 when PostgreSQL has no such function.
pub(super) fn fitting(call: ScalarFunction, schema: &DFSchema) -> Result<Expr> {
    if call.name() == "date_trunc" {
        return truncated(call);
    }
    let known = OF_TEXT.iter().find(|(name, ..)| *name == call.name());
    let Some((_, texts, of_bytes)) = known else {
        return Ok(Expr::ScalarFunction(call));
    };
    for arg in call.args.iter().take(*texts) {
        // what has no type yet will be text
        let Ok(ty) = arg.get_type(schema) else {
            continue;
        };
        match (family(&ty), of_bytes) {
            _ if ty.is_null() => {}
            (Family::Text | Family::Other, _) => {}
            (Family::Bytes, Some(of_bytes)) => return functions::call(of_bytes, call.args),
            _ => return Err(no_function(&call, schema).into()),
        }
    }
    Ok(Expr::ScalarFunction(call))
}

/// Units of `date_trunc` by their other names, and those that the planner's own lacks.
fn truncated(mut call: ScalarFunction) -> Result<Expr> {
    let unit = call.args.first().and_then(|unit| match unit {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_lowercase),
        _ => None,
    });
    let name = match unit.as_deref() {
        Some("decade" | "decades" | "century" | "centuries" | "millennium" | "millennia") => {
            return functions::call("date_trunc_years", call.args);
        }
        Some("years") => "year",
        Some("months") => "month",
        Some("weeks") => "week",
        Some("days") => "day",
        Some("hours") => "hour",
        Some("minutes") => "minute",
        Some("seconds") => "second",
        Some("milliseconds") => "millisecond",
        Some("microseconds") => "microsecond",
        _ => return Ok(Expr::ScalarFunction(call)),
    };
    if let Some(unit) = call.args.first_mut() {
        *unit = lit(name);
    }
    Ok(Expr::ScalarFunction(call))
}

fn no_function(call: &ScalarFunction, schema: &DFSchema) -> Error {
    let types = call.args.iter().map(|arg| match arg.get_type(schema) {
        Ok(ty) => name(&ty),
        Err(_) => "unknown".to_owned(),
    });
    let types = types.collect::<Vec<_>>().join(", ");
    let function = match call.name() {
        "character_length" => "length",
        name => name,
    };
    Error::refused(
        SqlState::UNDEFINED_FUNCTION,
        format!("function {function}({types}) does not exist"),
    )
    .with_hint("cast the value to text")
}
