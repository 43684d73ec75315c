//! `hop_window(ts, size, slide)` in `GROUP BY`: one group per window, a row in every window that covers it.
//!
//! As with `session_window`, the analyzer rule turns the aggregate over it into plain operators: the starts of
//! a row's windows as a list, the list unnested, and an aggregation by the start.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, ListBuilder, TimestampMicrosecondBuilder};
use datafusion::arrow::datatypes::{DataType, Field, Fields, TimeUnit, TimestampMicrosecondType};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue, UnnestOptions};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Documentation, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
    Projection, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion_macros::user_doc;

use super::session_id::time_and_gap;
use crate::FunctionError;
use crate::duration::{INTERVAL, constant, positive_micros};

const NAME: &str = "hop_window";
const START: &str = "__hop_start";
/// Windows that one row may be in.
const MOST: i64 = 10_000;

#[user_doc(
    doc_section(label = "Sessions"),
    description = "Groups rows into windows of one size that begin every `slide`: only in `GROUP BY`. A row counts in every window \
that covers its time. The value is a struct: `start` is a multiple of `slide` since 1970-01-01 00:00 UTC, `end` is `start` plus `size` and not part of \
the window. Rows whose time is NULL are left out.",
    syntax_example = "hop_window(ts, size, slide)",
    sql_example = r#"```sql
SELECT hop_window(ts, INTERVAL '1 hour', INTERVAL '15 minutes') AS w, count(*) AS events
FROM events GROUP BY hop_window(ts, INTERVAL '1 hour', INTERVAL '15 minutes') ORDER BY w;
```"#,
    argument(
        name = "ts",
        description = "Time of the row: `timestamptz`, `timestamp` or `date`"
    ),
    argument(
        name = "size",
        description = "Length of a window, a constant interval without months"
    ),
    argument(
        name = "slide",
        description = "Time from one window's start to the next, likewise"
    )
)]
/// `hop_window(ts, size, slide)`: name and type only; `expand` gives it its meaning.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct HopWindow {
    signature: Signature,
}

impl Default for HopWindow {
    fn default() -> Self {
        Self {
            // volatile, so that no rule folds or moves it before ours has seen it
            signature: Signature::user_defined(Volatility::Volatile),
        }
    }
}

impl ScalarUDFImpl for HopWindow {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [time, size, slide] = arg_types else {
            return Err(
                FunctionError::invalid("hop_window takes a time, a size and a slide").into(),
            );
        };
        let [time, _] = time_and_gap(NAME, &[time.clone(), size.clone()])?;
        time_and_gap(NAME, &[time.clone(), slide.clone()])?;
        Ok(vec![time, INTERVAL, INTERVAL])
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let time = self.coerce_types(arg_types)?.swap_remove(0);
        let fields = ["start", "end"].map(|name| Field::new(name, time.clone(), true));
        Ok(DataType::Struct(Fields::from(fields.to_vec())))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(misplaced().into())
    }
}

/// Starts of the windows that cover a time, as a list.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HopStarts {
    signature: Signature,
    size: i64,
    slide: i64,
}

impl HopStarts {
    /// Empty for NULL.
    fn starts(&self, ts: Option<i64>) -> impl Iterator<Item = i64> + '_ {
        let last = ts.map(|ts| ts.div_euclid(self.slide).saturating_mul(self.slide));
        let windows = last.into_iter().flat_map(move |last| {
            std::iter::successors(Some(last), |start| start.checked_sub(self.slide))
        });
        windows.take_while(move |start| {
            ts.and_then(|ts| ts.checked_sub(*start))
                .is_some_and(|into| into < self.size)
        })
    }
}

impl ScalarUDFImpl for HopStarts {
    fn name(&self) -> &str {
        "__hop_starts"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let time = arg_types.first().cloned().unwrap_or(DataType::Null);
        Ok(DataType::List(Arc::new(Field::new_list_field(time, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [times] = arrays.as_slice() else {
            return Err(FunctionError::invalid("__hop_starts takes a time").into());
        };
        let ty = times.data_type().clone();
        let item = Field::new_list_field(ty.clone(), true);
        let values = TimestampMicrosecondBuilder::new().with_data_type(ty);
        let mut lists = ListBuilder::new(values).with_field(item);
        for ts in times.as_primitive::<TimestampMicrosecondType>() {
            for start in self.starts(ts) {
                lists.values().append_value(start);
            }
            lists.append(true);
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish()) as ArrayRef))
    }
}

/// Plans an aggregate over `hop_window`; refuses it elsewhere.
pub(crate) fn expand(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut found = false;
    for expr in plan.expressions() {
        found |= contains(&expr)?;
    }
    if !found {
        return Ok(Transformed::no(plan));
    }
    match plan {
        LogicalPlan::Aggregate(aggregate) => Ok(Transformed::yes(plan_hops(aggregate)?)),
        _ => Err(misplaced().into()),
    }
}

/// Aggregate(keys…, hop_window) over input, as
/// Projection(Aggregate(keys…, start) over Unnest(starts) over Projection(input…, starts)).
fn plan_hops(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate {
        input,
        group_expr,
        aggr_expr,
        schema,
        ..
    } = aggregate;
    let mut places = Vec::new();
    for (i, group) in group_expr.iter().enumerate() {
        if contains(group)? {
            places.push(i);
        }
    }
    for call in &aggr_expr {
        if contains(call)? {
            return Err(misplaced().into());
        }
    }
    let [place] = places[..] else {
        return Err(FunctionError::unsupported("GROUP BY takes one hop_window only").into());
    };
    let Some([time, size, slide]) = group_expr.get(place).and_then(arguments) else {
        return Err(FunctionError::unsupported(
            "an expression over hop_window cannot be a GROUP BY key",
        )
        .with_hint("GROUP BY hop_window(…) itself and take its fields in the select list")
        .into());
    };
    let length = |expr: &Expr, what: &str| {
        let value = constant(expr)
            .ok_or_else(|| FunctionError::invalid(format!("{what} must be a constant")))?;
        positive_micros(&value, what)
    };
    let size = length(size, "size of hop_window")?;
    let slide = length(slide, "slide of hop_window")?;
    if size / slide > MOST {
        return Err(FunctionError::invalid(format!(
            "hop_window would put a row into more than {MOST} windows"
        ))
        .into());
    }
    let zoned = match time.get_type(input.schema())? {
        DataType::Timestamp(_, zone) => zone,
        _ => None,
    };
    let ty = DataType::Timestamp(TimeUnit::Microsecond, zoned);
    let starts = HopStarts {
        signature: Signature::exact(vec![ty.clone()], Volatility::Immutable),
        size,
        slide,
    };
    let time = time.clone().cast_to(&ty, input.schema())?;
    let starts = ScalarUDF::from(starts).call(vec![time]).alias(START);
    let columns = input.schema().columns().into_iter().map(Expr::Column);
    let with_starts = Projection::try_new(columns.chain([starts]).collect(), input)?;
    // a row without time is in no window
    let options = UnnestOptions::new().with_preserve_nulls(false);
    let rows = LogicalPlanBuilder::from(LogicalPlan::Projection(with_starts))
        .unnest_column_with_options(Column::new_unqualified(START), options)?
        .build()?;
    let start = Expr::Column(Column::new_unqualified(START));
    let groups = group_expr.into_iter().enumerate();
    let groups = groups.map(|(i, group)| match i == place {
        true => start.clone(),
        false => group,
    });
    let grouped = Aggregate::try_new(Arc::new(rows), groups.collect(), aggr_expr)?;
    let size = lit(ScalarValue::new_interval_mdn(
        0,
        0,
        size.saturating_mul(1000),
    ));
    let output = schema.iter().enumerate().map(|(i, (qualifier, field))| {
        if i == place {
            let end = start.clone() + size.clone();
            let window = named_struct(vec![lit("start"), start.clone(), lit("end"), end]);
            window.alias_qualified(qualifier.cloned(), field.name())
        } else {
            Expr::Column(Column::new(qualifier.cloned(), field.name()))
        }
    });
    let output = output.collect();
    let plan = Projection::try_new(output, Arc::new(LogicalPlan::Aggregate(grouped)))?;
    Ok(LogicalPlan::Projection(plan))
}

/// The arguments, when the expression is a call of `hop_window`, also behind aliases.
fn arguments(expr: &Expr) -> Option<&[Expr; 3]> {
    match expr {
        Expr::Alias(alias) => arguments(&alias.expr),
        Expr::ScalarFunction(call) if call.func.inner().is::<HopWindow>() => {
            call.args.as_slice().try_into().ok()
        }
        _ => None,
    }
}

fn contains(expr: &Expr) -> Result<bool> {
    expr.exists(|e| Ok(arguments(e).is_some()))
}

fn misplaced() -> FunctionError {
    FunctionError::misplaced("hop_window is only allowed in GROUP BY")
        .with_hint("GROUP BY hop_window(ts, size, slide)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_every_window_that_covers_it() {
        let hops = HopStarts {
            signature: Signature::any(1, Volatility::Immutable),
            size: 60,
            slide: 15,
        };
        let starts = |ts| hops.starts(ts).collect::<Vec<_>>();
        assert_eq!(starts(Some(61)), [60, 45, 30, 15]);
        assert_eq!(starts(Some(60)), [60, 45, 30, 15]);
        assert_eq!(starts(Some(-1)), [-15, -30, -45, -60]);
        assert_eq!(starts(None), [0_i64; 0]);
        // windows with pauses between them
        let rare = HopStarts {
            signature: Signature::any(1, Volatility::Immutable),
            size: 10,
            slide: 100,
        };
        assert_eq!(rare.starts(Some(105)).collect::<Vec<_>>(), [100]);
        assert_eq!(rare.starts(Some(150)).count(), 0);
    }
}
