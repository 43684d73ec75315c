//! Functions of lists.

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::{Entry, Gives, Nulls, Row, Ty, int4};
use crate::error::{Error, SqlState};

/// The most elements that a function makes out of nothing.
const MOST: i64 = 1_000_000;

const fn seen(
    name: &'static str,
    overloads: &'static [&'static [Ty]],
    gives: Gives,
    eval: fn(&Row<'_>) -> Result<ScalarValue, Error>,
) -> Entry {
    Entry {
        name,
        overloads,
        variadic: false,
        gives,
        nulls: Nulls::Seen,
        eval,
    }
}

pub(super) const LIST: &[Entry] = &[
    seen(
        "array_fill",
        &[&[Ty::Any, Ty::Int4List]],
        Gives::ListOf(0),
        fill,
    ),
    seen(
        "trim_array",
        &[&[Ty::AnyList, Ty::Int4]],
        Gives::Like(0),
        |row| {
            let Some(values) = elements(row, 0)? else {
                return null(row);
            };
            if row.is_null(1) {
                return null(row);
            }
            let gone = row.int(1);
            let length = i64::try_from(values.len()).unwrap_or(i64::MAX);
            if !(0..=length).contains(&gone) {
                return Err(Error::refused(
                    SqlState("2202E"),
                    format!("number of elements to trim must be between 0 and {length}"),
                ));
            }
            let left = usize::try_from(length - gone).unwrap_or_default();
            list(row, &values[..left])
        },
    ),
    seen(
        "array_remove",
        &[&[Ty::AnyList, Ty::Any]],
        Gives::Like(0),
        |row| {
            let Some(values) = elements(row, 0)? else {
                return null(row);
            };
            let gone = element(row, 1)?;
            list(
                row,
                &values
                    .into_iter()
                    .filter(|v| !same(v, &gone))
                    .collect::<Vec<_>>(),
            )
        },
    ),
    seen(
        "array_replace",
        &[&[Ty::AnyList, Ty::Any, Ty::Any]],
        Gives::Like(0),
        |row| {
            let Some(values) = elements(row, 0)? else {
                return null(row);
            };
            let (old, new) = (element(row, 1)?, element(row, 2)?);
            let changed = values
                .into_iter()
                .map(|v| if same(&v, &old) { new.clone() } else { v });
            list(row, &changed.collect::<Vec<_>>())
        },
    ),
    seen(
        "array_positions",
        &[&[Ty::AnyList, Ty::Any]],
        Gives::A(Ty::Int4List),
        |row| {
            let Some(values) = elements(row, 0)? else {
                return null(row);
            };
            let wanted = element(row, 1)?;
            let places = values
                .iter()
                .enumerate()
                .filter(|(_, v)| same(v, &wanted))
                .map(|(at, _)| int4(i64::try_from(at).unwrap_or(i64::MAX).saturating_add(1)))
                .collect::<Result<Vec<_>, Error>>()?;
            let places = ScalarValue::new_list(&places, &DataType::Int32, true);
            Ok(ScalarValue::List(places))
        },
    ),
];

fn null(row: &Row<'_>) -> Result<ScalarValue, Error> {
    Ok(ScalarValue::try_from(row.gives)?)
}

fn values_of(array: &ArrayRef) -> Result<Vec<ScalarValue>, Error> {
    (0..array.len())
        .map(|i| Ok(ScalarValue::try_from_array(array, i)?))
        .collect()
}

fn elements(row: &Row<'_>, i: usize) -> Result<Option<Vec<ScalarValue>>, Error> {
    row.list(i).map(|array| values_of(&array)).transpose()
}

/// An argument in the type of the list's elements.
fn element(row: &Row<'_>, i: usize) -> Result<ScalarValue, Error> {
    let DataType::List(of) = row.ty(0) else {
        return null(row);
    };
    let Some(array) = row.args.get(i) else {
        return null(row);
    };
    let one = cast(&array.slice(row.row, 1), of.data_type())?;
    Ok(ScalarValue::try_from_array(&one, 0)?)
}

/// NULL is like NULL here.
fn same(a: &ScalarValue, b: &ScalarValue) -> bool {
    (a.is_null() && b.is_null()) || a == b
}

fn list(row: &Row<'_>, values: &[ScalarValue]) -> Result<ScalarValue, Error> {
    let DataType::List(of) = row.gives else {
        return null(row);
    };
    Ok(ScalarValue::List(ScalarValue::new_list(
        values,
        of.data_type(),
        true,
    )))
}

fn fill(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let Some(sizes) = elements(row, 1)? else {
        return Err(Error::refused(
            SqlState("22004"),
            "dimension array or low bound array cannot be null",
        ));
    };
    let count = match sizes.as_slice() {
        [] => 0,
        [ScalarValue::Int32(Some(count))] => i64::from(*count),
        [_] => {
            return Err(Error::refused(
                SqlState("22004"),
                "dimension values cannot be null",
            ));
        }
        _ => {
            return Err(Error::unsupported(
                "arrays of more than one dimension are not supported",
                "fill one dimension",
            ));
        }
    };
    if !(0..=MOST).contains(&count) {
        return Err(Error::refused(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("array size exceeds the maximum allowed ({MOST})"),
        ));
    }
    let value = match row.args.first() {
        Some(array) => ScalarValue::try_from_array(array, row.row)?,
        None => ScalarValue::Null,
    };
    list(
        row,
        &vec![value; usize::try_from(count).unwrap_or_default()],
    )
}
