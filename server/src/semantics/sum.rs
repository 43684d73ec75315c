//! `sum` of integers that reports what does not fit. The engine's own wraps around.
//!
//! PostgreSQL widens `sum(bigint)` to `numeric`; here it stays `bigint`, which every client reads as
//! an integer, and a sum beyond its range is an error (22003).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{and, sum_checked};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

use crate::error::{Error, SqlState};

/// The function, to take the place of the engine's.
pub(super) fn function() -> AggregateUDF {
    AggregateUDF::from(CheckedSum(Sum::new()))
}

/// The engine's `sum`, with accumulators of its own for `bigint`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum(Sum);

fn is_bigint(args: &AccumulatorArgs<'_>) -> bool {
    !args.is_distinct && args.return_field.data_type() == &DataType::Int64
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match is_bigint(&args) {
            true => Ok(Box::new(Total::default())),
            false => self.0.accumulator(args),
        }
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        match is_bigint(&args) {
            true => Ok(Box::new(Total::default())),
            false => self.0.create_sliding_accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        match is_bigint(&args) {
            true => Ok(Box::new(Totals::default())),
            false => self.0.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn out_of_range() -> DataFusionError {
    Error::refused(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range").into()
}

fn sum_of(values: &ArrayRef) -> Result<i64> {
    let sum = sum_checked(values.as_primitive::<Int64Type>()).map_err(|_| out_of_range())?;
    Ok(sum.unwrap_or(0))
}

fn count_of(values: &ArrayRef) -> usize {
    values.len() - values.null_count()
}

/// The sum of all rows, or of those in a moving window; NULL when there is no value.
#[derive(Debug, Default)]
struct Total {
    sum: i64,
    values: usize,
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum = self
            .sum
            .checked_add(sum_of(&values[0])?)
            .ok_or_else(out_of_range)?;
        self.values += count_of(&values[0]);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum = self
            .sum
            .checked_sub(sum_of(&values[0])?)
            .ok_or_else(out_of_range)?;
        self.values = self.values.saturating_sub(count_of(&values[0]));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64((self.values > 0).then_some(self.sum)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// One sum per group.
#[derive(Debug, Default)]
struct Totals {
    sums: Vec<i64>,
    seen: Vec<bool>,
}

impl Totals {
    fn take(&mut self, emit_to: EmitTo) -> ArrayRef {
        let sums = emit_to.take_needed(&mut self.sums);
        let seen = emit_to.take_needed(&mut self.seen);
        let nulls = NullBuffer::from(seen);
        Arc::new(Int64Array::new(sums.into(), Some(nulls)))
    }
}

impl GroupsAccumulator for Totals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.sums.resize(total, 0);
        self.seen.resize(total, false);
        let values = values[0].as_primitive::<Int64Type>();
        let mut add = |group: usize, value: i64| {
            self.seen[group] = true;
            let sum = &mut self.sums[group];
            *sum = sum.checked_add(value).ok_or_else(out_of_range)?;
            Ok::<_, DataFusionError>(())
        };
        if filter.is_none() && values.null_count() == 0 {
            for (group, value) in groups.iter().zip(values.values()) {
                add(*group, *value)?;
            }
            return Ok(());
        }
        for (row, group) in groups.iter().enumerate() {
            let kept = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if kept && values.is_valid(row) {
                add(*group, values.value(row))?;
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.update_batch(states, groups, None, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(self.take(emit_to))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.take(emit_to)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let Some(filter) = filter else {
            return Ok(vec![Arc::clone(&values[0])]);
        };
        let valid = arrow::compute::is_not_null(&values[0])?;
        let kept = and(&valid, &arrow::compute::prep_null_mask_filter(filter))?;
        let values = values[0].as_primitive::<Int64Type>();
        let nulls = NullBuffer::new(kept.values().clone());
        let state = Int64Array::new(values.values().clone(), Some(nulls));
        Ok(vec![Arc::new(state)])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i64>() + self.seen.capacity()
    }
}
