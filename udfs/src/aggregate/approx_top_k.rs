//! `approx_top_k(x, k [, tracked])`: about which values are the most frequent, and how often they come.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StructArray, new_empty_array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility,
};
use datafusion::physical_plan::PhysicalExpr;
use datafusion_macros::user_doc;

use super::approx_distinct::{countable, state_field};
use crate::FunctionError;
use crate::duration::evaluated;
use crate::sketch::{Heavy, each_value, value_of};

/// How many values can be asked for.
const MOST: i64 = 10_000;
/// How many can be tracked.
const MOST_TRACKED: i64 = 100_000;
/// How many are tracked when nothing else is asked for.
const TRACKED: i64 = 1_000;

#[user_doc(
    doc_section(label = "Sketches"),
    description = "The `k` values of `x` that come most often, as a list of `{item, count}`, the most frequent first and equal ones in the order of \
their bytes. NULL is left out; no value gives an empty list. As long as `x` has no more different values than are tracked, the answer is exact. \
Beyond that no count is too great, none is too small by more than the number of rows divided by `tracked + 1`, and every value that \
comes more often than that is known. The state takes the bytes of each tracked value and about 4 more; states merge in any order, so \
materialized views over streams keep them.",
    syntax_example = "approx_top_k(x, k [, tracked])",
    sql_example = r#"```sql
SELECT approx_top_k(url, 10) FROM requests;
```"#,
    argument(
        name = "x",
        description = "Text, bytes, a number, a boolean, a date or a timestamp"
    ),
    argument(name = "k", description = "How many, a constant from 1 to 10000"),
    argument(
        name = "tracked",
        description = "How many values to track, a constant from `k` to 100000; by default 1000, or `k` when it is greater"
    )
)]
/// `approx_top_k`. The state is a `Heavy`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ApproxTopK {
    signature: Signature,
}

impl Default for ApproxTopK {
    fn default() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl AggregateUDFImpl for ApproxTopK {
    fn name(&self) -> &str {
        "approx_top_k"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let ([of, rest @ ..], 2 | 3) = (arg_types, arg_types.len()) else {
            let message = "approx_top_k takes a value, how many, and how many to track";
            return Err(FunctionError::invalid(message).into());
        };
        if !rest.iter().all(DataType::is_integer) {
            let message = "how many values approx_top_k gives and tracks must be whole numbers";
            return Err(FunctionError::wrong_type(message).into());
        }
        let mut types = vec![countable("approx_top_k", of)?];
        types.extend(rest.iter().map(|_| DataType::Int64));
        Ok(types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let of = arg_types.first().cloned().unwrap_or(DataType::Utf8);
        Ok(DataType::List(Arc::new(entry(of))))
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        match data_type {
            DataType::List(entry) => Ok(listed(new_empty_array(entry.data_type()))),
            other => Err(FunctionError::wrong_type(format!("not a list: {other}")).into()),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![state_field(args.name)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Err(FunctionError::unsupported("approx_top_k does not take DISTINCT").into());
        }
        let most = whole(args.exprs.get(1), 1..=MOST).ok_or_else(|| {
            FunctionError::invalid(
                "how many values approx_top_k gives must be a constant from 1 to 10000",
            )
        })?;
        let tracked = match args.exprs.get(2) {
            None => TRACKED.max(most),
            given => whole(given, most..=MOST_TRACKED).ok_or_else(|| {
                FunctionError::invalid(format!(
                    "how many values approx_top_k tracks must be a constant from {most} to {MOST_TRACKED}"
                ))
            })?,
        };
        let DataType::List(entry) = args.return_field.data_type() else {
            return Err(FunctionError::wrong_type("approx_top_k gives a list").into());
        };
        let DataType::Struct(fields) = entry.data_type() else {
            return Err(FunctionError::wrong_type("approx_top_k gives items and counts").into());
        };
        Ok(Box::new(TopK {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            fields: fields.clone(),
            sketch: Heavy::new(usize::try_from(tracked).unwrap_or(usize::MAX)),
        }))
    }

    fn supports_null_handling_clause(&self) -> bool {
        false
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn entry(of: DataType) -> Field {
    let fields = Fields::from(vec![
        Field::new("item", of, true),
        Field::new("count", DataType::Int64, true),
    ]);
    Field::new_list_field(DataType::Struct(fields), true)
}

fn whole(
    expr: Option<&Arc<dyn PhysicalExpr>>,
    within: std::ops::RangeInclusive<i64>,
) -> Option<i64> {
    let value = expr.and_then(evaluated)?.cast_to(&DataType::Int64).ok()?;
    match value {
        ScalarValue::Int64(Some(n)) if within.contains(&n) => Some(n),
        _ => None,
    }
}

fn listed(entries: ArrayRef) -> ScalarValue {
    SingleRowListArrayBuilder::new(entries).build_list_scalar()
}

#[derive(Debug)]
struct TopK {
    most: usize,
    fields: Fields,
    sketch: Heavy,
}

impl Accumulator for TopK {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values.first() {
            Some(values) => each_value(values, |value| self.sketch.add(value, 1)),
            None => Ok(()),
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in states
            .iter()
            .flat_map(|s| s.as_binary::<i32>().iter().flatten())
        {
            self.sketch.merge_bytes(state)?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.sketch.state()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let ty = match self.fields.first() {
            Some(field) => field.data_type().clone(),
            None => DataType::Null,
        };
        let top = self.sketch.top(self.most);
        let counts = top
            .iter()
            .map(|(_, n)| i64::try_from(*n).unwrap_or(i64::MAX));
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(counts));
        let items = top.iter().map(|(value, _)| value_of(value, &ty));
        let items = items.collect::<Result<Vec<_>>>()?;
        let items = match items.is_empty() {
            true => new_empty_array(&ty),
            false => ScalarValue::iter_to_array(items)?,
        };
        let entries = StructArray::try_new(self.fields.clone(), vec![items, counts], None)?;
        Ok(listed(Arc::new(entries)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sketch.size()
    }
}
