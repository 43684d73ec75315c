//! What `timestamptz` means where the session's `TimeZone` is not UTC: the engine counts its days and hours in
//! UTC, PostgreSQL by the session's clocks. Plans of sessions in UTC are left as they are, and what lies below the
//! edge of a view.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use chrono_tz::Tz;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator};

use super::functions;

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn is_instant(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(_, Some(_)))
}

fn as_type(expr: Expr, from: &DataType, to: DataType) -> Expr {
    match *from == to {
        true => expr,
        false => Expr::Cast(Cast::new(Box::new(expr), to)),
    }
}

/// The clocks of the session at an instant.
fn local(expr: Expr, ty: &DataType, zone: Tz) -> Result<Expr> {
    let args = vec![as_type(expr, ty, instant())];
    functions::call_in("instant_to_local", args, zone)
}

/// A cast between an instant and a date or time of the clocks.
pub(super) fn cast(cast: &Cast, schema: &DFSchema, zone: Tz) -> Result<Option<Expr>> {
    let from = cast.expr.get_type(schema)?;
    let to = cast.field.data_type();
    let expr = (*cast.expr).clone();
    Ok(match (&from, to) {
        (DataType::Timestamp(_, None) | DataType::Date32, DataType::Timestamp(_, Some(_))) => {
            let local = as_type(expr, &from, LOCAL);
            let at = functions::call_in("local_to_instant", vec![local], zone)?;
            Some(as_type(at, &instant(), to.clone()))
        }
        (
            DataType::Timestamp(_, Some(_)),
            DataType::Timestamp(_, None) | DataType::Date32 | DataType::Time64(_),
        ) => Some(as_type(local(expr, &from, zone)?, &LOCAL, to.clone())),
        _ => None,
    })
}

/// An instant plus or minus an interval: a day is as long as the clocks have it.
pub(super) fn sum(sum: BinaryExpr, schema: &DFSchema, zone: Tz) -> Result<Transformed<Expr>> {
    let (left, right) = (sum.left.get_type(schema)?, sum.right.get_type(schema)?);
    let name = match sum.op {
        Operator::Plus => "instant_plus_interval",
        Operator::Minus => "instant_minus_interval",
        _ => return Ok(Transformed::no(Expr::BinaryExpr(sum))),
    };
    let is_interval = |ty: &DataType| matches!(ty, DataType::Interval(_));
    let (at, at_type, span, span_type) = match sum.op {
        _ if is_instant(&left) && is_interval(&right) => (sum.left, left, sum.right, right),
        Operator::Plus if is_instant(&right) && is_interval(&left) => {
            (sum.right, right, sum.left, left)
        }
        _ => return Ok(Transformed::no(Expr::BinaryExpr(sum))),
    };
    let months = DataType::Interval(IntervalUnit::MonthDayNano);
    let args = vec![
        as_type(*at, &at_type, instant()),
        as_type(*span, &span_type, months),
    ];
    let moved = functions::call_in(name, args, zone)?;
    Ok(Transformed::yes(as_type(moved, &instant(), at_type)))
}

/// Fields and starts of days, weeks, months by the clocks.
pub(super) fn call(call: ScalarFunction, schema: &DFSchema, zone: Tz) -> Result<Transformed<Expr>> {
    let [field, value] = call.args.as_slice() else {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    };
    let ty = value.get_type(schema)?;
    let same = |name: &str| matches!(field, Expr::Literal(v, _) if v.try_as_str().flatten().is_some_and(|f| f.eq_ignore_ascii_case(name)));
    if !is_instant(&ty) {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    let own = || functions::DATE_FIELDS.iter().any(|field| same(field));
    match call.name() {
        "date_part" if own() => {
            let field = functions::call_in("date_field", call.args.clone(), zone)?;
            Ok(Transformed::yes(field))
        }
        "date_part" if !same("epoch") => {
            let args = vec![field.clone(), local(value.clone(), &ty, zone)?];
            Ok(Transformed::yes(call.func.call(args)))
        }
        "date_trunc" | "date_trunc_years" => {
            let args = vec![field.clone(), local(value.clone(), &ty, zone)?];
            let at = functions::call_in("local_to_instant", vec![call.func.call(args)], zone)?;
            Ok(Transformed::yes(as_type(at, &instant(), ty)))
        }
        _ => Ok(Transformed::no(Expr::ScalarFunction(call))),
    }
}
