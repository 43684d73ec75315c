//! Text → value and value → text by PostgreSQL's input and output rules.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use chrono_tz::Tz;
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::casts::unnamed;
use super::functions;
use crate::error::Error;
use crate::types::TYPE_KEY;
use crate::values::{self, ColumnWriter, Style, WireFormat};

/// Names of the functions.
pub(super) const NAMES: [&str; 2] = [Read::NAME, Write::NAME];

/// `text::type`; the result has the field's type and tag. Without a zone, the session's counts that runs it.
pub(super) fn read(text: Expr, to: &FieldRef, zone: Option<Tz>) -> Expr {
    call(
        Read {
            volatility: volatility(to.data_type()),
            to: unnamed(to),
            zone: zone.filter(|_| has_zone(to.data_type())),
        },
        text,
    )
}

/// `value::text`.
pub(super) fn write(value: Expr, from: &FieldRef, zone: Option<Tz>) -> Expr {
    call(
        Write {
            volatility: volatility(from.data_type()),
            from: unnamed(from),
            zone: zone.filter(|_| has_zone(from.data_type())),
        },
        value,
    )
}

fn call<F: Conversion>(function: F, arg: Expr) -> Expr {
    let signature = Signature::any(1, function.volatility());
    Arc::new(ScalarUDF::from(Function {
        function,
        signature,
    }))
    .call(vec![arg])
}

fn has_zone(ty: &DataType) -> bool {
    match ty {
        DataType::Timestamp(_, zone) => zone.is_some(),
        DataType::List(of) => has_zone(of.data_type()),
        _ => false,
    }
}

/// Instants are read and written in the session's time zone.
fn volatility(ty: &DataType) -> Volatility {
    match ty {
        DataType::Timestamp(_, Some(_)) => Volatility::Stable,
        _ => Volatility::Immutable,
    }
}

/// A conversion of one array.
trait Conversion: std::fmt::Debug + PartialEq + Eq + std::hash::Hash + Send + Sync + 'static {
    const NAME: &'static str;
    fn volatility(&self) -> Volatility;
    fn result(&self) -> FieldRef;
    fn convert(&self, array: &ArrayRef, zone: Tz) -> Result<ArrayRef, Error>;
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Read {
    volatility: Volatility,
    to: FieldRef,
    zone: Option<Tz>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Write {
    volatility: Volatility,
    from: FieldRef,
    zone: Option<Tz>,
}

impl Conversion for Read {
    const NAME: &'static str = "text_to_value";

    fn volatility(&self) -> Volatility {
        self.volatility
    }

    fn result(&self) -> FieldRef {
        Arc::clone(&self.to)
    }

    fn convert(&self, array: &ArrayRef, session: Tz) -> Result<ArrayRef, Error> {
        let zone = self.zone.unwrap_or(session);
        let texts = cast(array, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let tag = self.to.metadata().get(TYPE_KEY);
        if let Some(n) = tag.and_then(|t| t.strip_prefix("varchar:")?.parse().ok()) {
            return Ok(Arc::new(truncated(texts, n)));
        }
        if tag.is_some_and(|t| t == "jsonb") {
            return Ok(Arc::new(functions::normalized_all(texts)?));
        }
        let mut reader = values::reader(&self.to, zone)?;
        for text in texts {
            match text {
                Some(text) => reader.text(text)?,
                None => reader.null(),
            }
        }
        reader.finish()
    }
}

/// An explicit cast to `varchar(n)` cuts without complaint, as the SQL standard wants.
fn truncated(texts: &StringArray, n: usize) -> StringArray {
    let cut = |text: &str| match text.char_indices().nth(n) {
        Some((at, _)) => text[..at].to_owned(),
        None => text.to_owned(),
    };
    texts.iter().map(|text| text.map(cut)).collect()
}

impl Conversion for Write {
    const NAME: &'static str = "value_to_text";

    fn volatility(&self) -> Volatility {
        self.volatility
    }

    fn result(&self) -> FieldRef {
        Arc::new(Field::new("text", DataType::Utf8, true))
    }

    fn convert(&self, array: &ArrayRef, session: Tz) -> Result<ArrayRef, Error> {
        let zone = self.zone.unwrap_or(session);
        let style = Style {
            time_zone: zone,
            ..Style::default()
        };
        let cells = ColumnWriter::new(&self.from, array, WireFormat::Text, style)?;
        let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 16);
        let mut cell = Vec::new();
        for row in 0..array.len() {
            if cells.is_null(row) {
                texts.append_null();
                continue;
            }
            cell.clear();
            cells.write(row, &mut cell)?;
            texts.append_value(values::valid_text(&cell)?);
        }
        Ok(Arc::new(texts.finish()))
    }
}

/// One value by PostgreSQL's output rules.
pub(super) fn shown(
    array: &ArrayRef,
    field: &Field,
    row: usize,
    zone: Tz,
) -> Result<String, Error> {
    let style = Style {
        time_zone: zone,
        ..Style::default()
    };
    let one = array.slice(row, 1);
    let cells = ColumnWriter::new(field, &one, WireFormat::Text, style)?;
    let mut cell = Vec::new();
    cells.write(0, &mut cell)?;
    Ok(values::valid_text(&cell)?.to_owned())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function<F> {
    function: F,
    signature: Signature,
}

impl<F: Conversion> ScalarUDFImpl for Function<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(self.function.result().data_type().clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(self.function.result())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = session_zone(&args.config_options);
        let (array, scalar) = match args.args.first() {
            Some(ColumnarValue::Array(array)) => (Arc::clone(array), false),
            Some(ColumnarValue::Scalar(value)) => (value.to_array()?, true),
            None => return Ok(ColumnarValue::Scalar(ScalarValue::Null)),
        };
        let converted = self
            .function
            .convert(&array, zone)
            .map_err(DataFusionError::from)?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(first(&converted)?),
            false => ColumnarValue::Array(converted),
        })
    }
}

/// The first value of an array. A list keeps what its field says of its elements.
pub(super) fn first(array: &ArrayRef) -> Result<ScalarValue> {
    match array.as_list_opt::<i32>() {
        Some(list) => Ok(ScalarValue::List(Arc::new(list.slice(0, 1)))),
        None => ScalarValue::try_from_array(array, 0),
    }
}

pub(super) fn session_zone(options: &ConfigOptions) -> Tz {
    let name = options.execution.time_zone.as_deref().unwrap_or("UTC");
    Tz::from_str(name).unwrap_or(Tz::UTC)
}
