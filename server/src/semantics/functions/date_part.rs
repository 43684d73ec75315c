//! `date_part`, which `EXTRACT` is too: the planner's where it gives what PostgreSQL does, else our own.
//!
//! The planner's gives whole seconds, counts years before Christ from a year 0 and lacks some fields. Fields
//! that may have a fraction are double precision here, the others integers.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, TimeUnit};
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
    value.cast_to(&ty, None)
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
