//! `window_funnel(window, [mode,] ts, cond1, cond2, …)`: how far a chain of events came in time.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array};
use datafusion::arrow::datatypes::{
    DataType, Field, FieldRef, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility,
};
use datafusion_macros::user_doc;

use crate::FunctionError;
use crate::duration::{INTERVAL, evaluated, micros};

mod levels;

use levels::{Event, Mode};

#[user_doc(
    doc_section(label = "Product Analytics"),
    description = "How many steps of a funnel a group of rows completed: the length of the longest chain `cond1`, `cond2`, … in time \
order whose last event is at most `window` after its first. Steps at the same time count in the order of the conditions, and one row may \
serve several steps. Any number of conditions. Rows whose time is NULL are ignored; a NULL condition is false; no row gives 0.

Modes: `strict_increase` (each step strictly later than the one before), `strict_order` (after the first step 1, a row that meets no \
condition ends the scan, and so does a step whose predecessor has not been reached), `strict_deduplication` (a second event of a step \
above 1 that was already reached ends the scan). The level is the deepest one reached until then.",
    syntax_example = "window_funnel(window, ts, cond1, cond2, ...)",
    alternative_syntax = "window_funnel(window, mode, ts, cond1, cond2, ...)",
    sql_example = r#"```sql
SELECT user_id, window_funnel(INTERVAL '1 day', ts, event = 'cart', event = 'checkout', event = 'paid') AS level
FROM events GROUP BY user_id;
```"#,
    argument(
        name = "window",
        description = "Longest time from the first step to the last, inclusive: a constant interval without months, or whole seconds; over an integer `ts`, an integer in its unit"
    ),
    argument(
        name = "mode",
        description = "`strict_increase`, `strict_order` or `strict_deduplication`; none by default"
    ),
    argument(
        name = "ts",
        description = "Time of the row: `timestamptz`, `timestamp`, `date` or `bigint`"
    ),
    argument(name = "cond", description = "What a row must meet to be that step")
)]
/// `window_funnel`. The state is a bag of events, so states merge in any order.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct WindowFunnel {
    signature: Signature,
}

impl Default for WindowFunnel {
    fn default() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl AggregateUDFImpl for WindowFunnel {
    fn name(&self) -> &str {
        "window_funnel"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(coerced(arg_types)?)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int32(Some(0)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |name: &str, ty: DataType| {
            let item = Arc::new(Field::new_list_field(ty, true));
            Arc::new(Field::new(
                format!("{}[{name}]", args.name),
                DataType::List(item),
                true,
            ))
        };
        Ok(vec![
            list("time", DataType::Int64),
            list("level", DataType::Int32),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Err(FunctionError::unsupported("window_funnel does not take DISTINCT").into());
        }
        let types: Vec<_> = args.expr_fields.iter().map(|f| f.data_type()).collect();
        let has_mode = types.get(1).is_some_and(|ty| ty.is_string());
        let mode = match has_mode {
            true => Mode::parse(args.exprs.get(1).and_then(evaluated).as_ref())?,
            false => Mode::Default,
        };
        let first = if has_mode { 2 } else { 1 };
        let over_integers = types.get(first).is_some_and(|ty| ty.is_integer());
        let window = args.exprs.first().and_then(evaluated).ok_or_else(|| {
            FunctionError::invalid("the window of window_funnel must be a constant")
        })?;
        Ok(Box::new(Funnel {
            window: window_length(&window, over_integers)?,
            mode,
            steps: types.len().saturating_sub(first + 1),
            first,
            events: Vec::new(),
        }))
    }

    fn supports_null_handling_clause(&self) -> bool {
        false
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// Argument types after coercion; anything else is refused.
fn coerced(types: &[DataType]) -> Result<Vec<DataType>, FunctionError> {
    let has_mode = types.get(1).is_some_and(DataType::is_string);
    let first = if has_mode { 2 } else { 1 };
    let (Some(window), Some(time)) = (types.first(), types.get(first)) else {
        return Err(FunctionError::invalid(
            "window_funnel takes a window, a time and conditions",
        ));
    };
    if types.len() < first + 2 {
        return Err(FunctionError::invalid(
            "window_funnel needs at least one condition",
        ));
    }
    let time = match time {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        ty if ty.is_integer() => DataType::Int64,
        other => {
            return Err(FunctionError::wrong_type(format!(
                "the time of window_funnel must be a timestamp, a date or an integer, not {other}"
            )));
        }
    };
    let window = match window {
        ty if ty.is_integer() => DataType::Int64,
        DataType::Interval(_) | DataType::Duration(_) if time != DataType::Int64 => INTERVAL,
        ty if ty.is_string() && time != DataType::Int64 => INTERVAL,
        other => {
            return Err(FunctionError::wrong_type(format!(
                "the window of window_funnel cannot be {other} over a time of type {time}"
            )));
        }
    };
    let mut out = vec![window];
    if has_mode {
        out.push(DataType::Utf8);
    }
    out.push(time);
    for (i, condition) in types[first + 1..].iter().enumerate() {
        if !matches!(condition, DataType::Boolean | DataType::Null) {
            return Err(FunctionError::wrong_type(format!(
                "condition {} of window_funnel must be boolean, not {condition}",
                i + 1
            )));
        }
        out.push(DataType::Boolean);
    }
    Ok(out)
}

/// The window in the unit of the stored times.
fn window_length(window: &ScalarValue, over_integers: bool) -> Result<i64, FunctionError> {
    let length = match window {
        ScalarValue::Int64(Some(n)) if over_integers => *n,
        ScalarValue::Int64(Some(n)) => n
            .checked_mul(1_000_000)
            .ok_or_else(|| FunctionError::invalid("the window of window_funnel is too long"))?,
        ScalarValue::Int64(None) => {
            return Err(FunctionError::invalid(
                "the window of window_funnel must not be null",
            ));
        }
        other => micros(other, "the window of window_funnel")?,
    };
    if length < 0 {
        return Err(FunctionError::invalid(
            "the window of window_funnel must not be negative",
        ));
    }
    Ok(length)
}

/// Collects the events of one group.
#[derive(Debug)]
struct Funnel {
    window: i64,
    mode: Mode,
    steps: usize,
    /// Index of the time argument; the conditions follow it.
    first: usize,
    events: Vec<Event>,
}

impl Accumulator for Funnel {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let times = times(&values[self.first])?;
        let conditions: Vec<&BooleanArray> = values[self.first + 1..]
            .iter()
            .map(|v| v.as_boolean())
            .collect();
        for row in 0..times.len() {
            if times.is_null(row) {
                continue;
            }
            let time = times.value(row);
            let before = self.events.len();
            for (level, condition) in (1_i32..).zip(&conditions) {
                if condition.is_valid(row) && condition.value(row) {
                    self.events.push(Event { time, level });
                }
            }
            // only strict_order looks at rows that are no step
            if self.events.len() == before && self.mode == Mode::Order {
                self.events.push(Event { time, level: 0 });
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.events.sort_unstable();
        let level = levels::deepest(&self.events, self.window, self.mode, self.steps);
        Ok(ScalarValue::Int32(Some(level)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.events.capacity() * size_of::<Event>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let times = Int64Array::from_iter_values(self.events.iter().map(|e| e.time));
        let levels = self.events.iter().map(|e| e.level);
        let levels = Int32Array::from_iter_values(levels);
        Ok(vec![
            SingleRowListArrayBuilder::new(Arc::new(times)).build_list_scalar(),
            SingleRowListArrayBuilder::new(Arc::new(levels)).build_list_scalar(),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [times, levels] = states else {
            return Err(DataFusionError::Internal(
                "window_funnel state has two columns".to_owned(),
            ));
        };
        let rows = times
            .as_list::<i32>()
            .iter()
            .zip(levels.as_list::<i32>().iter());
        for (times, levels) in rows {
            let (Some(times), Some(levels)) = (times, levels) else {
                continue;
            };
            let times = times.as_primitive::<Int64Type>().values();
            let levels = levels.as_primitive::<Int32Type>().values();
            let events = times.iter().zip(levels);
            self.events
                .extend(events.map(|(&time, &level)| Event { time, level }));
        }
        Ok(())
    }
}

fn times(values: &ArrayRef) -> Result<Int64Array> {
    match values.data_type() {
        DataType::Int64 => Ok(values.as_primitive::<Int64Type>().clone()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(values
            .as_primitive::<TimestampMicrosecondType>()
            .reinterpret_cast::<Int64Type>()),
        other => Err(DataFusionError::Internal(format!(
            "window_funnel over {other}"
        ))),
    }
}
