//! `avg` of `numeric`, rounded as a quotient is. The engine's own cuts off.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::average::Avg;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

use super::division::quotient;

/// Digits that the engine computes beyond those that are shown: what it cuts off behind the first one does not
/// change how it is rounded.
const MORE: i8 = 1;

/// The function, to take the place of the engine's.
pub(super) fn function() -> AggregateUDF {
    AggregateUDF::from(Average(Avg::new()))
}

/// The engine's `avg`, its means of `numeric` rounded.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Average(Avg);

/// The type that the engine computes in for a result type, when the result is `numeric`.
fn computed(result: &DataType) -> Option<DataType> {
    match result {
        DataType::Decimal128(_, scale) => {
            let scale = scale
                .saturating_add(MORE)
                .min(DECIMAL128_MAX_PRECISION.cast_signed());
            Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale))
        }
        _ => None,
    }
}

/// The arguments of the engine's accumulators, and the type to round to.
fn inner<T>(
    args: &AccumulatorArgs<'_>,
    make: impl Fn(AccumulatorArgs<'_>) -> Result<T>,
) -> Result<(T, Option<DataType>)> {
    let result = args.return_field.data_type();
    match computed(result) {
        Some(ty) => {
            let field = Field::new(args.return_field.name(), ty, true);
            let args = AccumulatorArgs {
                return_field: field.into(),
                ..args.clone()
            };
            Ok((make(args)?, Some(result.clone())))
        }
        None => Ok((make(args.clone())?, None)),
    }
}

impl Average {
    fn rounding(
        &self,
        args: &AccumulatorArgs<'_>,
        make: impl Fn(AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>>,
    ) -> Result<Box<dyn Accumulator>> {
        Ok(match inner(args, make)? {
            (mean, Some(to)) => Box::new(Rounded { mean, to }),
            (mean, None) => mean,
        })
    }
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &'static str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Decimal128(_, scale)] => Ok(quotient(*scale)),
            types => self.0.return_type(types),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.rounding(&args, |args| self.0.accumulator(args))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        self.rounding(&args, |args| self.0.create_sliding_accumulator(args))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let make = |args: AccumulatorArgs<'_>| self.0.create_groups_accumulator(args);
        Ok(match inner(&args, make)? {
            (means, Some(to)) => Box::new(RoundedGroups { means, to }),
            (means, None) => means,
        })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug)]
struct Rounded {
    mean: Box<dyn Accumulator>,
    to: DataType,
}

impl Accumulator for Rounded {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.mean.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.mean.evaluate()?.cast_to(&self.to)
    }

    fn size(&self) -> usize {
        self.mean.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.mean.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.mean.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.mean.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.mean.supports_retract_batch()
    }
}

struct RoundedGroups {
    means: Box<dyn GroupsAccumulator>,
    to: DataType,
}

impl GroupsAccumulator for RoundedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.means.update_batch(values, groups, filter, count)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(cast(&self.means.evaluate(emit_to)?, &self.to)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.means.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.means.merge_batch(states, groups, count)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.means.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.means.size()
    }
}
