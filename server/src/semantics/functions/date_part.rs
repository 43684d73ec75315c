//! `date_part`, which `EXTRACT` is too: the planner's where it gives what PostgreSQL does, else our own.
//!
//! The planner's gives whole seconds, counts years before Christ from a year 0 and lacks some fields. Fields
//! that may have a fraction are double precision here, the others integers.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Float64Type, Int32Type, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::{FUNCTIONS, instants};
use crate::error::Error;

static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let planners = datafusion::functions::datetime::date_part();
    Arc::new(ScalarUDF::from(DatePart { planners }))
});

/// The function.
pub(in crate::semantics) fn function() -> Arc<ScalarUDF> {
    Arc::clone(&FUNCTION)
}

#[derive(Debug)]
struct DatePart {
    planners: Arc<ScalarUDF>,
}

impl PartialEq for DatePart {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for DatePart {}

impl Hash for DatePart {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.planners.hash(state);
    }
}

/// How fields begin that a date does not have.
const OF_A_DAY: [&str; 6] = ["hour", "min", "sec", "milli", "ms", "micro"];

/// A field's name as it was written, in small letters.
fn name(field: Option<&ScalarValue>) -> Option<String> {
    let text = field?.try_as_str().flatten()?;
    Some(text.to_ascii_lowercase())
}

fn is_ours(field: &str) -> bool {
    instants::FIELDS.contains(&field)
}

impl ScalarUDFImpl for DatePart {
    fn name(&self) -> &str {
        self.planners.name()
    }

    fn aliases(&self) -> &[String] {
        self.planners.aliases()
    }

    fn signature(&self) -> &Signature {
        self.planners.signature()
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        self.planners.return_type(given)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = name(args.scalar_arguments.first().copied().flatten());
        match field.is_some_and(|field| is_ours(&field)) {
            true => Ok(Arc::new(Field::new(self.name(), DataType::Float64, true))),
            false => self.planners.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let field = match args.args.first() {
            Some(ColumnarValue::Scalar(value)) => name(Some(value)),
            _ => None,
        };
        let of = args.args.get(1).map(ColumnarValue::data_type);
        let of_date = matches!(of, Some(DataType::Date32));
        match field.as_deref() {
            Some(field) if of_date && OF_A_DAY.iter().any(|part| field.starts_with(part)) => {
                Err(Error::unsupported(
                    format!("unit \"{field}\" not supported for type date"),
                    "cast the date to timestamp",
                )
                .into())
            }
            Some(field) if is_ours(field) => {
                if let Some(value) = args.args.get_mut(1) {
                    *value = in_micros(value)?;
                    let ty = value.data_type();
                    if let Some(field) = args.arg_fields.get_mut(1) {
                        *field = Arc::new(field.as_ref().clone().with_data_type(ty));
                    }
                }
                match FUNCTIONS.get("date_field") {
                    Some(function) => function.invoke_with_args(args),
                    None => Err(Error::Internal("no function date_field".to_owned()).into()),
                }
            }
            Some(field @ ("epoch" | "year" | "years"))
                if args.args.get(1).is_some_and(any_infinite) =>
            {
                match field {
                    "epoch" => epoch(&self.planners, args),
                    _ => Err(Error::unsupported(
                        "the year of infinity is not supported",
                        "ask isfinite() first",
                    )
                    .into()),
                }
            }
            Some("year" | "years") => {
                let years = self.planners.invoke_with_args(args)?;
                match of {
                    Some(DataType::Interval(_)) => Ok(years),
                    _ => without_year_0(&years),
                }
            }
            _ => self.planners.invoke_with_args(args),
        }
    }
}

/// Dates and times in the form that our own fields are read from.
fn in_micros(value: &ColumnarValue) -> Result<ColumnarValue> {
    let ty = match value.data_type() {
        DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        _ => return Ok(value.clone()),
    };
    match value.data_type() {
        DataType::Date32 if any_infinite(value) => with_ends(value),
        _ => value.cast_to(&ty, None),
    }
}

/// Timestamps of dates of which some are infinite.
fn with_ends(dates: &ColumnarValue) -> Result<ColumnarValue> {
    let rows = match dates {
        ColumnarValue::Array(array) => array.len(),
        ColumnarValue::Scalar(_) => 1,
    };
    let dates = dates.to_array(rows)?;
    let all = dates.as_primitive::<Date32Type>().iter();
    let all = all.map(|day| match day {
        Some(i32::MAX) => Some(i64::MAX),
        Some(i32::MIN) => Some(i64::MIN),
        day => day.map(|day| i64::from(day).saturating_mul(86_400_000_000)),
    });
    let all: TimestampMicrosecondArray = all.collect();
    Ok(ColumnarValue::Array(Arc::new(all)))
}

/// The far ends of dates and times, which are infinity.
fn is_infinite(value: &ScalarValue) -> Option<f64> {
    let (least, most) = match value {
        ScalarValue::Date32(Some(days)) => (*days == i32::MIN, *days == i32::MAX),
        ScalarValue::TimestampMicrosecond(Some(at), _) => (*at == i64::MIN, *at == i64::MAX),
        _ => (false, false),
    };
    match (least, most) {
        (true, _) => Some(f64::NEG_INFINITY),
        (_, true) => Some(f64::INFINITY),
        _ => None,
    }
}

fn any_infinite(value: &ColumnarValue) -> bool {
    match value {
        ColumnarValue::Scalar(value) => is_infinite(value).is_some(),
        ColumnarValue::Array(array) => match array.data_type() {
            DataType::Date32 => {
                let days = array.as_primitive::<Date32Type>().values();
                days.iter().any(|day| matches!(*day, i32::MIN | i32::MAX))
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let all = array.as_primitive::<TimestampMicrosecondType>().values();
                all.iter().any(|at| matches!(*at, i64::MIN | i64::MAX))
            }
            _ => false,
        },
    }
}

/// The planner's, with infinity where it is due.
fn epoch(planners: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (rows, value) = (args.number_rows, args.args.get(1).cloned());
    let seconds = planners.invoke_with_args(args)?.into_array(rows)?;
    let seconds = seconds.as_primitive::<Float64Type>();
    let Some(value) = value else {
        return Ok(ColumnarValue::Array(Arc::new(seconds.clone())));
    };
    let value = value.into_array(rows)?;
    let ends = (0..rows).map(|row| {
        let end = is_infinite(&ScalarValue::try_from_array(&value, row)?);
        let known = (!seconds.is_null(row)).then(|| seconds.value(row));
        Ok(end.or(known))
    });
    let seconds: Float64Array = ends.collect::<Result<_>>()?;
    Ok(ColumnarValue::Array(Arc::new(seconds)))
}

/// The year before 1 is -1.
fn without_year_0(years: &ColumnarValue) -> Result<ColumnarValue> {
    let shift = |years: &ArrayRef| -> Result<ArrayRef> {
        let years = cast(years, &DataType::Int32)?;
        let years = years.as_primitive::<Int32Type>();
        Ok(Arc::new(years.unary::<_, Int32Type>(|year| match year {
            ..=0 => year - 1,
            _ => year,
        })))
    };
    match years {
        ColumnarValue::Array(array) => Ok(ColumnarValue::Array(shift(array)?)),
        ColumnarValue::Scalar(value) => {
            let shifted = shift(&value.to_array()?)?;
            let value = ScalarValue::try_from_array(&shifted, 0)?;
            Ok(ColumnarValue::Scalar(value))
        }
    }
}
