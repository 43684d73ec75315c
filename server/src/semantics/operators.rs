//! Operators at planning: `date + interval` and its kin, quoted literals that take the type of the
//! other side, and pairs of types that PostgreSQL has no operator for.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, Operator, binary_expr};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::types::{Family, family, is_unknown, name};
use super::{integers, intervals};
use crate::error::{Error, SqlState};

pub(super) fn planner() -> Arc<dyn ExprPlanner> {
    Arc::new(Operators)
}

#[derive(Debug)]
struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        // what has no type yet, a parameter for one, is planned as it stands
        let (Ok(left), Ok(right)) = (type_of(&raw.left, schema), type_of(&raw.right, schema))
        else {
            return Ok(PlannerResult::Original(raw));
        };
        if is_comparison(&raw.op) {
            return compare(raw, &left, &right);
        }
        if let Some(op) = arithmetic(&raw.op) {
            return compute(raw, op, &left, &right);
        }
        Ok(PlannerResult::Original(raw))
    }
}

/// The type that the expression will have: small literals are `integer`.
fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    match integers::narrowed(expr) {
        Some(_) => Ok(DataType::Int32),
        None => expr.get_type(schema),
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

fn arithmetic(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Plus => Operator::Plus,
        BinaryOperator::Minus => Operator::Minus,
        BinaryOperator::Multiply => Operator::Multiply,
        BinaryOperator::Divide => Operator::Divide,
        BinaryOperator::Modulo => Operator::Modulo,
        _ => return None,
    })
}

/// The type that a quoted literal takes beside another: digits after the point are not cut off.
fn beside(ty: &DataType) -> DataType {
    match ty {
        DataType::Decimal128(..) => DataType::Decimal128(38, 10),
        other => other.clone(),
    }
}

fn compare(
    mut raw: RawBinaryExpr,
    left: &DataType,
    right: &DataType,
) -> Result<PlannerResult<RawBinaryExpr>> {
    let (a, b) = (family(left), family(right));
    if a == b || a == Family::Other || b == Family::Other || left.is_null() || right.is_null() {
        return Ok(PlannerResult::Original(raw));
    }
    if is_unknown(&raw.right) {
        raw.right = cast(raw.right, beside(left));
    } else if is_unknown(&raw.left) {
        raw.left = cast(raw.left, beside(right));
    } else {
        return Err(no_operator(&raw.op, left, right));
    }
    Ok(PlannerResult::Original(raw))
}

fn compute(
    raw: RawBinaryExpr,
    op: Operator,
    left: &DataType,
    right: &DataType,
) -> Result<PlannerResult<RawBinaryExpr>> {
    use Family::{Instant, Interval, Number, Text};
    use Operator::{Divide, Minus, Multiply, Plus};
    let is_date = |ty: &DataType| matches!(ty, DataType::Date32);
    let RawBinaryExpr {
        left: l, right: r, ..
    } = raw.clone();
    let planned = |expr| Ok(PlannerResult::Planned(expr));
    match (family(left), op, family(right)) {
        // a quoted literal beside a number is a number
        (Number, _, Text) if is_unknown(&r) => planned(binary_expr(l, op, cast(r, beside(left)))),
        (Text, _, Number) if is_unknown(&l) => planned(binary_expr(cast(l, beside(right)), op, r)),
        (Instant, Plus | Minus, Interval) if is_date(left) => {
            planned(binary_expr(cast(l, timestamp()), op, r))
        }
        (Interval, Plus, Instant) => {
            let instant = if is_date(right) {
                cast(r, timestamp())
            } else {
                r
            };
            planned(binary_expr(instant, Plus, l))
        }
        (Instant, Minus, Instant) if is_date(left) && is_date(right) => planned(binary_expr(
            cast(l, DataType::Int32),
            Minus,
            cast(r, DataType::Int32),
        )),
        (Instant, Plus | Minus, Number) if is_date(left) && right.is_integer() => {
            planned(cast(binary_expr(days(l), op, days(r)), DataType::Date32))
        }
        (Number, Plus, Instant) if is_date(right) && left.is_integer() => {
            planned(cast(binary_expr(days(l), Plus, days(r)), DataType::Date32))
        }
        (Interval, Multiply, Number) => {
            planned(intervals::times(span(l), cast(r, DataType::Float64)))
        }
        (Number, Multiply, Interval) => {
            planned(intervals::times(span(r), cast(l, DataType::Float64)))
        }
        (Interval, Divide, Number) => planned(intervals::over(span(l), cast(r, DataType::Float64))),
        (Number, _, Number) | (Family::Other, _, _) | (_, _, Family::Other) => {
            Ok(PlannerResult::Original(raw))
        }
        _ if left.is_null() || right.is_null() || is_unknown(&l) || is_unknown(&r) => {
            Ok(PlannerResult::Original(raw))
        }
        (Instant, Plus | Minus, Interval)
        | (Instant, Minus, Instant)
        | (Interval, Plus | Minus, Interval)
        | (Family::Time, Plus | Minus, Interval)
        | (Family::Time, Minus, Family::Time)
        | (Interval, Plus, Family::Time) => Ok(PlannerResult::Original(raw)),
        _ => Err(no_operator(&raw.op, left, right)),
    }
}

/// Days as an `integer`, of a date or of a number.
fn days(expr: Expr) -> Expr {
    cast(expr, DataType::Int32)
}

fn span(expr: Expr) -> Expr {
    cast(expr, DataType::Interval(IntervalUnit::MonthDayNano))
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

fn no_operator(
    op: &BinaryOperator,
    left: &DataType,
    right: &DataType,
) -> datafusion::error::DataFusionError {
    Error::refused(
        SqlState::UNDEFINED_FUNCTION,
        format!(
            "operator does not exist: {} {op} {}",
            name(left),
            name(right)
        ),
    )
    .with_hint("no operator takes these types; you might need an explicit cast")
    .into()
}
