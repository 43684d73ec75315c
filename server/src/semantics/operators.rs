//! Operators at planning: `date + interval` and its kin, quoted literals that take the type of the
//! other side, and pairs of types that PostgreSQL has no operator for.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_nested::expr_fn::{array_has_all, array_has_any};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, Operator, binary_expr};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use catalog::SqlType;

use super::types::{Family, family, is_unknown, name};
use super::{functions, integers, intervals};
use crate::error::{Error, SqlState};
use crate::types::{self, TYPE_KEY};

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
        if raw.op == BinaryOperator::PGExp {
            let power = functions::call("power", vec![raw.left, raw.right])?;
            return Ok(PlannerResult::Planned(power));
        }
        if let Some(shared) = on_lists(&raw, schema)? {
            return Ok(PlannerResult::Planned(shared));
        }
        if let Some(call) = on_json(&raw, schema)? {
            return Ok(PlannerResult::Planned(call));
        }
        // what has no type yet, a parameter for one, is planned as it stands
        let (Ok(left), Ok(right)) = (type_of(&raw.left, schema), type_of(&raw.right, schema))
        else {
            return Ok(PlannerResult::Original(raw));
        };
        if raw.op == BinaryOperator::StringConcat {
            return concatenate(raw, &left, &right);
        }
        if is_comparison(&raw.op) {
            if family(&left) == Family::Interval || family(&right) == Family::Interval {
                return compare_intervals(raw, &left, &right);
            }
            return compare(raw, &left, &right);
        }
        if let Some(op) = arithmetic(&raw.op) {
            return compute(raw, op, &left, &right);
        }
        Ok(PlannerResult::Original(raw))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(functions::date_part().call(args)))
    }
}

/// `&&` of lists, and a quoted list beside one in `@>`, `<@` and `&&`.
fn on_lists(raw: &RawBinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
    use BinaryOperator::{ArrowAt, AtArrow, PGOverlap};
    if !matches!(raw.op, ArrowAt | AtArrow | PGOverlap) {
        return Ok(None);
    }
    let list = |expr: &Expr| {
        let ty = expr.get_type(schema).ok();
        ty.filter(|ty| matches!(ty, DataType::List(_)))
    };
    let beside = |expr: &Expr, ty: DataType| match is_unknown(expr) {
        true => Some(cast(expr.clone(), ty)),
        false => None,
    };
    let (left, right) = match (list(&raw.left), list(&raw.right)) {
        (Some(_), Some(_)) if raw.op != PGOverlap => return Ok(None),
        (Some(_), Some(_)) => (raw.left.clone(), raw.right.clone()),
        (Some(ty), None) => match beside(&raw.right, ty) {
            Some(right) => (raw.left.clone(), right),
            None => return Ok(None),
        },
        (None, Some(ty)) => match beside(&raw.left, ty) {
            Some(left) => (left, raw.right.clone()),
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    Ok(Some(match raw.op {
        AtArrow => array_has_all(left, right),
        ArrowAt => array_has_all(right, left),
        // NULL is like no element
        _ => {
            let null = Expr::Literal(ScalarValue::Null, None);
            array_has_any(left, functions::call("array_remove", vec![right, null])?)
        }
    }))
}

/// An operator over `json` or `jsonb` as the function behind it; `jsonb` beside a quoted literal is compared
/// in its own form.
fn on_json(raw: &RawBinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
    use BinaryOperator::{
        Arrow, ArrowAt, AtArrow, Eq, HashArrow, HashLongArrow, HashMinus, LongArrow, Minus, NotEq,
        Question, QuestionAnd, QuestionPipe, StringConcat,
    };
    let is = |expr: &Expr, tags: &[&str]| {
        let field = expr.to_field(schema).ok().map(|(_, field)| field);
        let tag = field.and_then(|f| f.metadata().get(TYPE_KEY).cloned());
        tag.is_some_and(|tag| tags.contains(&tag.as_str()))
    };
    let (left_jsonb, right_jsonb) = (is(&raw.left, &["jsonb"]), is(&raw.right, &["jsonb"]));
    let left_json = left_jsonb || is(&raw.left, &["json"]);
    let by_place = || type_of(&raw.right, schema).is_ok_and(|ty| ty.is_integer());
    let name = match raw.op {
        Arrow if left_json && by_place() => "json_array_element",
        Arrow if left_json => "json_object_field",
        LongArrow if left_json && by_place() => "json_array_element_text",
        LongArrow if left_json => "json_object_field_text",
        HashArrow if left_json => "json_path",
        HashLongArrow if left_json => "json_path_text",
        AtArrow if left_jsonb || right_jsonb => "jsonb_contains",
        ArrowAt if left_jsonb || right_jsonb => "jsonb_contained",
        Question if left_jsonb => "jsonb_exists",
        QuestionAnd if left_jsonb => "jsonb_exists_all",
        QuestionPipe if left_jsonb => "jsonb_exists_any",
        StringConcat if left_jsonb && (right_jsonb || is_unknown(&raw.right)) => "jsonb_concat",
        StringConcat if right_jsonb && is_unknown(&raw.left) => "jsonb_concat",
        Minus if left_jsonb => "jsonb_delete",
        HashMinus if left_jsonb => "jsonb_delete_path",
        // any spelling of a uuid is the same uuid
        _ if is_comparison(&raw.op) && is(&raw.left, &["uuid"]) && is_unknown(&raw.right) => {
            let right = uuid(raw.right.clone());
            return compared(&raw.op, raw.left.clone(), right);
        }
        _ if is_comparison(&raw.op) && is(&raw.right, &["uuid"]) && is_unknown(&raw.left) => {
            let left = uuid(raw.left.clone());
            return compared(&raw.op, left, raw.right.clone());
        }
        Eq | NotEq if left_jsonb != right_jsonb => {
            let (left, right) = match left_jsonb {
                true if is_unknown(&raw.right) => (raw.left.clone(), jsonb(raw.right.clone())),
                false if is_unknown(&raw.left) => (jsonb(raw.left.clone()), raw.right.clone()),
                _ => return Ok(None),
            };
            let op = if raw.op == Eq {
                Operator::Eq
            } else {
                Operator::NotEq
            };
            return Ok(Some(binary_expr(left, op, right)));
        }
        _ => return Ok(None),
    };
    functions::call(name, vec![raw.left.clone(), raw.right.clone()]).map(Some)
}

fn jsonb(expr: Expr) -> Expr {
    tagged(expr, &SqlType::Jsonb)
}

fn uuid(expr: Expr) -> Expr {
    match expr {
        // the type of a parameter is found by what it is compared with
        Expr::Placeholder(_) => expr,
        expr => tagged(expr, &SqlType::Uuid),
    }
}

fn tagged(expr: Expr, sql: &SqlType) -> Expr {
    let field = Arc::new(types::field("cast", sql, true));
    Expr::Cast(Cast::new_from_field(Box::new(expr), field))
}

fn compared(op: &BinaryOperator, left: Expr, right: Expr) -> Result<Option<Expr>> {
    Ok(comparison(op).map(|op| binary_expr(left, op, right)))
}

fn comparison(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::NotEq => Operator::NotEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        _ => return None,
    })
}

/// Intervals are as long as their months of 30 days and their days of 24 hours.
fn compare_intervals(
    raw: RawBinaryExpr,
    left: &DataType,
    right: &DataType,
) -> Result<PlannerResult<RawBinaryExpr>> {
    let interval = |expr: &Expr, ty: &DataType| family(ty) == Family::Interval || is_unknown(expr);
    if !interval(&raw.left, left) || !interval(&raw.right, right) {
        return compare(raw, left, right);
    }
    let Some(op) = comparison(&raw.op) else {
        return Ok(PlannerResult::Original(raw));
    };
    let order = |expr| functions::call("interval_order", vec![span(expr)]);
    let compared = binary_expr(order(raw.left)?, op, order(raw.right)?);
    Ok(PlannerResult::Planned(compared))
}

/// The type that the expression will have: small literals are `integer`.
fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    match integers::narrowed(expr) {
        Some(_) => Ok(DataType::Int32),
        None => expr.get_type(schema),
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    comparison(op).is_some()
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

/// Bytes go with bytes; a quoted literal beside them is read as such.
fn concatenate(
    mut raw: RawBinaryExpr,
    left: &DataType,
    right: &DataType,
) -> Result<PlannerResult<RawBinaryExpr>> {
    let bytes = [left, right].map(|ty| family(ty) == Family::Bytes);
    let open = |expr: &Expr, ty: &DataType| is_unknown(expr) || ty.is_null();
    match bytes {
        [true, false] if open(&raw.right, right) => raw.right = tagged(raw.right, &SqlType::Bytea),
        [false, true] if open(&raw.left, left) => raw.left = tagged(raw.left, &SqlType::Bytea),
        [true, false] | [false, true] => return Err(no_operator(&raw.op, left, right)),
        _ => {}
    }
    Ok(PlannerResult::Original(raw))
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
