//! Columns → numbers, the same way in training and scoring.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use super::artifact::{Encoder, Feature};
use crate::error::{Error, Result, SqlState};

/// Categories a text column may have; the rarest of more fall under "other".
const MAX_CATEGORIES: usize = 100;

/// What a column's type makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Number,
    Text,
    Boolean,
}

fn shape(ty: &DataType) -> Option<Shape> {
    match ty {
        DataType::Boolean => Some(Shape::Boolean),
        DataType::Dictionary(_, value) => shape(value),
        ty if ty.is_numeric() => Some(Shape::Number),
        ty if ty.is_string() => Some(Shape::Text),
        _ => None,
    }
}

/// Can a column of this type feed this encoder? A bare NULL feeds all.
pub fn takes(encoder: &Encoder, ty: &DataType) -> bool {
    let wanted = match encoder {
        Encoder::Number { .. } => Shape::Number,
        Encoder::Text { .. } => Shape::Text,
        Encoder::Boolean => Shape::Boolean,
    };
    *ty == DataType::Null || shape(ty) == Some(wanted)
}

/// Learns the encoder of a training column; `standardise` centers and scales numbers.
///
/// # Errors
/// A type that is no feature, NaN or infinity, no value at all.
pub fn fit(name: &str, column: &ArrayRef, standardise: bool) -> Result<Feature> {
    let encoder = match shape(column.data_type()) {
        Some(Shape::Number) => fit_number(name, column, standardise)?,
        Some(Shape::Text) => fit_text(column)?,
        Some(Shape::Boolean) => Encoder::Boolean,
        None => {
            return Err(Error::unsupported(
                format!(
                    "column \"{name}\" of type {} cannot be a feature",
                    crate::types::sql_type_of(column.data_type())
                ),
                "features are numbers, text and boolean; make one of them in the training query",
            ));
        }
    };
    Ok(Feature {
        name: name.to_owned(),
        encoder,
    })
}

fn fit_number(name: &str, column: &ArrayRef, standardise: bool) -> Result<Encoder> {
    let values = numbers(column)?;
    if values.iter().flatten().any(|x| !x.is_finite()) {
        return Err(invalid(format!("column \"{name}\" holds NaN or infinity")));
    }
    let n = (values.len() - values.null_count()) as f64;
    if n == 0.0 {
        return Err(invalid(format!("column \"{name}\" holds only nulls")));
    }
    let mean = values.iter().flatten().map(|x| x / n).sum::<f64>();
    // filled values sit at the mean, so they add nothing to the variance
    let squares = values.iter().flatten().map(|x| (x - mean).powi(2));
    let deviation = (squares.sum::<f64>() / values.len() as f64).sqrt();
    if !mean.is_finite() || !deviation.is_finite() {
        return Err(invalid(format!(
            "the values of column \"{name}\" are too large"
        )));
    }
    // a constant column carries nothing: centered it is 0 everywhere
    let is_constant = deviation <= mean.abs() * 1e-12 || !deviation.is_normal();
    Ok(Encoder::Number {
        center: if standardise { mean } else { 0.0 },
        scale: if standardise && !is_constant {
            deviation
        } else {
            1.0
        },
        fill: mean,
    })
}

fn fit_text(column: &ArrayRef) -> Result<Encoder> {
    let values = texts(column)?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in values.iter().flatten() {
        *counts.entry(value).or_default() += 1;
    }
    let mut by_count: Vec<(&str, usize)> = counts.into_iter().collect();
    by_count.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    by_count.truncate(MAX_CATEGORIES);
    let mut categories: Vec<String> = by_count.iter().map(|(c, _)| (*c).to_owned()).collect();
    categories.sort_unstable();
    Ok(Encoder::Text { categories })
}

/// Calls `put(row, offset, value)` for every number of the column that is not 0, `offset` counted from
/// the feature's first number.
///
/// # Errors
/// When the column's type does not fit (see [`takes`]).
pub fn each(
    encoder: &Encoder,
    column: &ArrayRef,
    mut put: impl FnMut(usize, usize, f64),
) -> Result<()> {
    match encoder {
        Encoder::Number {
            center,
            scale,
            fill,
        } => {
            for (row, value) in numbers(column)?.iter().enumerate() {
                let value = value.filter(|x| x.is_finite()).unwrap_or(*fill);
                put(row, 0, (value - center) / scale);
            }
        }
        Encoder::Text { categories } => {
            let places: HashMap<&str, usize> = categories
                .iter()
                .enumerate()
                .map(|(i, c)| (c.as_str(), i))
                .collect();
            for (row, value) in texts(column)?.iter().enumerate() {
                let place = value.and_then(|v| places.get(v).copied());
                put(row, place.unwrap_or(categories.len()), 1.0);
            }
        }
        Encoder::Boolean => {
            let values = cast(column, &DataType::Boolean)?;
            for (row, value) in values.as_boolean().iter().enumerate() {
                put(row, value.map_or(2, usize::from), 1.0);
            }
        }
    }
    Ok(())
}

/// All rows as one dense row-major matrix of `width` numbers each.
pub fn matrix(features: &[Feature], columns: &[ArrayRef], width: usize) -> Result<Vec<f64>> {
    let rows = columns.first().map_or(0, |c| c.len());
    let mut out = vec![0.0; rows * width];
    let mut first = 0;
    for (feature, column) in features.iter().zip(columns) {
        each(&feature.encoder, column, |row, offset, value| {
            out[row * width + first + offset] = value;
        })?;
        first += feature.encoder.width();
    }
    Ok(out)
}

fn numbers(column: &ArrayRef) -> Result<Float64Array> {
    let cast = cast(column, &DataType::Float64)?;
    Ok(cast.as_primitive::<Float64Type>().clone())
}

fn texts(column: &ArrayRef) -> Result<StringArray> {
    let cast = cast(column, &DataType::Utf8)?;
    Ok(cast.as_string::<i32>().clone())
}

fn invalid(message: String) -> Error {
    Error::refused(SqlState::INVALID_PARAMETER_VALUE, message)
        .with_hint("filter or replace such values in the training query")
}
