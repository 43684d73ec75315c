//! `session_id(ts, gap) OVER (PARTITION BY … ORDER BY ts)`: number of the row's session.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Documentation, Expr, LimitEffect, PartitionEvaluator, Signature, Volatility,
    WindowFunctionDefinition, WindowUDFImpl,
};
use datafusion::physical_plan::PhysicalExpr;
use datafusion_macros::user_doc;

use crate::FunctionError;
use crate::duration::{INTERVAL, evaluated, positive_micros};

#[user_doc(
    doc_section(label = "Sessions"),
    description = "Number of the row's session within its partition, a `bigint` from 1. A new session starts where the time since \
the previous row is longer than the gap; a pause of exactly the gap stays inside. Rows whose time is NULL get NULL and end nothing. \
`ORDER BY` the time is required; descending order numbers from the newest session.",
    syntax_example = "session_id(ts, gap) OVER (PARTITION BY user_id ORDER BY ts)",
    sql_example = r#"```sql
SELECT user_id, ts, session_id(ts, INTERVAL '30 minutes') OVER (PARTITION BY user_id ORDER BY ts) FROM events;
```"#,
    argument(
        name = "ts",
        description = "Time of the row: `timestamptz`, `timestamp` or `date`"
    ),
    argument(
        name = "gap",
        description = "Longest pause inside a session, a constant interval without months"
    )
)]
/// `session_id(ts, gap)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    signature: Signature,
}

impl Default for SessionId {
    fn default() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl WindowUDFImpl for SessionId {
    fn name(&self) -> &str {
        "session_id"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(time_and_gap(self.name(), arg_types)?.to_vec())
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Int64, true)))
    }

    fn partition_evaluator(
        &self,
        args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        let Some(gap) = args.input_exprs().get(1).and_then(evaluated) else {
            return Err(FunctionError::invalid("gap of session_id must be a constant").into());
        };
        Ok(Box::new(Sessions {
            gap: positive_micros(&gap, "gap of session_id")?,
            number: 0,
            previous: None,
        }))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

/// Refuses clauses that have no meaning on `session_id`, and an order that is not by its time.
pub(crate) fn check(call: &WindowFunction) -> Result<(), FunctionError> {
    let WindowFunctionDefinition::WindowUDF(function) = &call.fun else {
        return Ok(());
    };
    if !function.inner().is::<SessionId>() {
        return Ok(());
    }
    let WindowFunctionParams {
        args,
        order_by,
        filter,
        null_treatment,
        distinct,
        partition_by: _,
        window_frame: _,
    } = &call.params;
    if filter.is_some() || null_treatment.is_some() || *distinct {
        return Err(FunctionError::unsupported(
            "session_id takes no FILTER, DISTINCT or null treatment",
        )
        .with_hint("filter the rows in a subquery"));
    }
    let by_time = order_by
        .first()
        .zip(args.first())
        .is_some_and(|(order, time)| uncast(&order.expr) == uncast(time));
    if by_time {
        return Ok(());
    }
    Err(
        FunctionError::invalid("session_id needs ORDER BY its time first")
            .with_hint("session_id(ts, gap) OVER (PARTITION BY user_id ORDER BY ts)"),
    )
}

fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => uncast(&cast.expr),
        Expr::Alias(alias) => uncast(&alias.expr),
        other => other,
    }
}

/// Argument types of the session functions: microseconds with the time zone as given, and an interval.
pub(crate) fn time_and_gap(
    function: &str,
    types: &[DataType],
) -> Result<[DataType; 2], FunctionError> {
    let [time, gap] = types else {
        return Err(FunctionError::invalid(format!(
            "{function} takes a time and a gap"
        )));
    };
    let time = match time {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Date32 | DataType::Date64 | DataType::Null => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        other => {
            return Err(FunctionError::wrong_type(format!(
                "{function} needs a timestamp or a date, not {other}"
            )));
        }
    };
    match gap {
        DataType::Interval(_)
        | DataType::Duration(_)
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Null => Ok([time, INTERVAL]),
        other => Err(FunctionError::wrong_type(format!(
            "gap of {function} must be an interval, not {other}"
        ))
        .with_hint("write INTERVAL '30 minutes'")),
    }
}

/// Counts sessions along one partition. Needs one row at a time, so it runs in constant memory.
#[derive(Debug)]
struct Sessions {
    gap: i64,
    number: i64,
    previous: Option<i64>,
}

impl Sessions {
    fn next(&mut self, ts: Option<i64>) -> Option<i64> {
        let ts = ts?;
        let within = self
            .previous
            .is_some_and(|previous| ts.abs_diff(previous) <= self.gap.unsigned_abs());
        if !within {
            self.number += 1;
        }
        self.previous = Some(ts);
        Some(self.number)
    }
}

impl PartitionEvaluator for Sessions {
    fn is_causal(&self) -> bool {
        true
    }

    fn supports_bounded_execution(&self) -> bool {
        true
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        let times = values[0].as_primitive::<TimestampMicrosecondType>();
        let ts = times
            .is_valid(range.start)
            .then(|| times.value(range.start));
        Ok(ScalarValue::Int64(self.next(ts)))
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let times = values[0].as_primitive::<TimestampMicrosecondType>();
        let numbers: Int64Array = times.iter().map(|ts| self.next(ts)).collect();
        Ok(Arc::new(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(times: &[Option<i64>], gap: i64) -> Vec<Option<i64>> {
        let mut sessions = Sessions {
            gap,
            number: 0,
            previous: None,
        };
        times.iter().map(|ts| sessions.next(*ts)).collect()
    }

    #[test]
    fn a_pause_of_exactly_the_gap_stays_inside() {
        let times = [Some(0), Some(10), Some(21), Some(21)];
        assert_eq!(numbers(&times, 10), [Some(1), Some(1), Some(2), Some(2)]);
    }

    #[test]
    fn null_times_get_null_and_end_nothing() {
        let times = [None, Some(0), None, Some(5)];
        assert_eq!(numbers(&times, 10), [None, Some(1), None, Some(1)]);
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let times = [Some(i64::MIN), Some(i64::MAX), Some(i64::MIN)];
        assert_eq!(numbers(&times, 10), [Some(1), Some(2), Some(3)]);
    }
}
