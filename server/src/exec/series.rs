//! Parameters of `generate_series` in `FROM`. The planner makes the function's table while it plans, so
//! they are put in before, where its arguments are whole numbers.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    DataType as SqlDataType, Expr, Statement, TableFactor, Value, VisitMut, VisitorMut,
    visit_expressions, visit_expressions_mut,
};

use crate::dialect::words::parts;
use crate::error::{Error, Result, SqlState};

/// Puts the values in.
///
/// # Errors
/// 42804 for a value that is no number.
pub(super) fn bind(statement: &mut Statement, params: &[ScalarValue]) -> Result<()> {
    each(statement, &mut |n| {
        // without a value it is refused as any other parameter
        params.get(n - 1).map(whole).transpose()
    })
}

/// Puts a number in for each, and says that it is one, unless the client did.
///
/// # Errors
/// None of its own.
pub(super) fn describe(statement: &mut Statement, hints: &mut Vec<Option<DataType>>) -> Result<()> {
    each(statement, &mut |n| {
        if hints.len() < n {
            hints.resize(n, None);
        }
        if let Some(hint) = hints.get_mut(n - 1) {
            hint.get_or_insert(DataType::Int32);
        }
        Ok(Some(Some(1)))
    })
}

/// A parameter's number → the value it gets, if it gets one.
type Give<'a> = dyn FnMut(usize) -> Result<Option<Option<i64>>> + 'a;

fn each(statement: &mut Statement, give: &mut Give<'_>) -> Result<()> {
    match statement.visit(&mut Series { give }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct Series<'a, 'b> {
    give: &'a mut Give<'b>,
}

impl VisitorMut for Series<'_, '_> {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let series = match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            }
            | TableFactor::Function { name, .. } => parts(name).pop(),
            _ => None,
        };
        if series.as_deref() != Some("generate_series") || !of_numbers(factor) {
            return ControlFlow::Continue(());
        }
        visit_expressions_mut(factor, |expr| match self.put(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        })
    }
}

impl Series<'_, '_> {
    fn put(&mut self, expr: &mut Expr) -> Result<()> {
        let Expr::Value(value) = expr else {
            return Ok(());
        };
        let Value::Placeholder(name) = &value.value else {
            return Ok(());
        };
        let Ok(n @ 1..) = name.trim_start_matches('$').parse::<usize>() else {
            return Ok(());
        };
        if let Some(given) = (self.give)(n)? {
            value.value = match given {
                Some(number) => Value::Number(number.to_string(), false),
                None => Value::Null,
            };
        }
        Ok(())
    }
}

/// True when nothing in the call can be other than a whole number, such as a time.
fn of_numbers(call: &TableFactor) -> bool {
    let other = visit_expressions(call, |expr| {
        let number = match expr {
            Expr::Value(v) => matches!(
                v.value,
                Value::Number(..) | Value::Placeholder(_) | Value::Null
            ),
            Expr::Cast { data_type, .. } => matches!(
                data_type,
                SqlDataType::SmallInt(None)
                    | SqlDataType::Int(None)
                    | SqlDataType::Int2(None)
                    | SqlDataType::Int4(None)
                    | SqlDataType::Int8(None)
                    | SqlDataType::Integer(None)
                    | SqlDataType::BigInt(None)
            ),
            Expr::UnaryOp { .. } | Expr::BinaryOp { .. } | Expr::Nested(_) => true,
            _ => false,
        };
        match number {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    other.is_continue()
}

fn whole(value: &ScalarValue) -> Result<Option<i64>> {
    match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(number) => Ok(number),
        _ => Err(Error::refused(
            SqlState::DATATYPE_MISMATCH,
            "a parameter of generate_series must be a whole number",
        )),
    }
}
