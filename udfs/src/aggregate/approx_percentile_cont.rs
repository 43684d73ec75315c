//! `approx_percentile_cont(p [, buckets]) WITHIN GROUP (ORDER BY x)`: about where a part of the values ends.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::approx_percentile_cont::ApproxPercentileCont as Original;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature};
use datafusion::physical_plan::PhysicalExpr;
use datafusion_macros::user_doc;

use super::approx_distinct::state_field;
use crate::FunctionError;
use crate::duration::evaluated;
use crate::sketch::{CAPACITY, Quantiles};

/// How many buckets can be asked for.
const BUCKETS: std::ops::RangeInclusive<i64> = 16..=65_536;

#[user_doc(
    doc_section(label = "Sketches"),
    description = "About the value that the part `p` of all values of `x` is not above, between its neighbours where it falls between two. Up to \
`buckets` different values the answer is exact, as that of `percentile_cont`. Beyond that values share buckets that grow with them: \
with 4096 buckets the answer is off by 0.4 % at most when the greatest value is a million times the least, by 0.05 % when 16 times. \
NULL is left out; NaN is greater than any number. The state takes about 10 bytes for each bucket in use, and is the same whatever order values \
come in, so materialized views over streams keep it.",
    syntax_example = "approx_percentile_cont(p [, buckets]) WITHIN GROUP (ORDER BY x)",
    alternative_syntax = "approx_percentile_cont(x, p [, buckets])",
    sql_example = r#"```sql
SELECT route, approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY latency) AS p99 FROM requests GROUP BY route;
```"#,
    argument(name = "x", description = "A number; taken as `double precision`"),
    argument(name = "p", description = "The part, a constant from 0 to 1"),
    argument(
        name = "buckets",
        description = "How many buckets at most, a constant from 16 to 65536; 4096 by default"
    )
)]
/// `approx_percentile_cont`. The state is `Quantiles`.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct ApproxPercentileCont {
    /// DataFusion's of that name, for what it takes.
    like: Original,
}

impl AggregateUDFImpl for ApproxPercentileCont {
    fn name(&self) -> &str {
        "approx_percentile_cont"
    }

    fn signature(&self) -> &Signature {
        self.like.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types.first().cloned().unwrap_or(DataType::Float64))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![state_field(args.name)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Err(FunctionError::unsupported(
                "approx_percentile_cont does not take DISTINCT",
            )
            .into());
        }
        let part = part(args.exprs.get(1))?;
        let down = args.order_bys.first().is_some_and(|o| o.options.descending);
        Ok(Box::new(Percentile {
            part: if down { 1.0 - part } else { part },
            ty: args.return_field.data_type().clone(),
            sketch: Quantiles::new(buckets(args.exprs.get(2))?),
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn supports_null_handling_clause(&self) -> bool {
        false
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn part(expr: Option<&Arc<dyn PhysicalExpr>>) -> Result<f64, FunctionError> {
    let value = expr
        .and_then(evaluated)
        .and_then(|v| v.cast_to(&DataType::Float64).ok());
    match value {
        Some(ScalarValue::Float64(Some(part))) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err(FunctionError::invalid(
            "the part of approx_percentile_cont must be a constant from 0 to 1",
        )),
    }
}

fn buckets(expr: Option<&Arc<dyn PhysicalExpr>>) -> Result<usize, FunctionError> {
    let Some(expr) = expr else {
        return Ok(CAPACITY);
    };
    let value = evaluated(expr).and_then(|v| v.cast_to(&DataType::Int64).ok());
    match value {
        Some(ScalarValue::Int64(Some(count))) if BUCKETS.contains(&count) => {
            Ok(usize::try_from(count).unwrap_or(CAPACITY))
        }
        _ => Err(FunctionError::invalid(
            "the buckets of approx_percentile_cont must be a constant from 16 to 65536",
        )),
    }
}

/// One quantile of the values that come.
#[derive(Debug)]
pub(super) struct Percentile {
    /// Of how much of them.
    pub(super) part: f64,
    /// The result's type.
    pub(super) ty: DataType,
    /// What has come.
    pub(super) sketch: Quantiles,
}

impl Accumulator for Percentile {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if let Some(values) = values.first() {
            let floats = cast(values, &DataType::Float64)?;
            self.sketch
                .add(floats.as_primitive::<Float64Type>().iter().flatten());
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in states
            .iter()
            .flat_map(|s| s.as_binary::<i32>().iter().flatten())
        {
            self.sketch.merge(&Quantiles::from_bytes(state)?);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.sketch.to_bytes()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.ty {
            DataType::Null => Ok(ScalarValue::Null),
            _ => ScalarValue::Float64(self.sketch.quantile(self.part)).cast_to(&self.ty),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sketch.size()
    }
}
