//! Functions over arrays that the rewrites need: membership in an array that may also be written
//! as text (`'{r,v}'`), and arrays that are empty rather than NULL. Also `pg_typeof`.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, ListBuilder, StringArray, StringBuilder,
    UInt32Builder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result as QueryResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Error, SqlState};
use crate::types::sql_type;

pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    [
        Form::AnyOf,
        Form::ArrayOrEmpty,
        Form::ArrayPrefix,
        Form::OidList,
        Form::Typeof,
    ]
    .into_iter()
    .map(|form| Arc::new(ScalarUDF::from(ArrayFunction::new(form))))
    .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    /// `any_of(value, array)`: `value = ANY (array)`.
    AnyOf,
    /// `array_or_empty(array)`: the array, empty where it is NULL.
    ArrayOrEmpty,
    /// `array_prefix(text, array)`: every element with the text before it.
    ArrayPrefix,
    /// `oid_list(array)`: the array as one of oids; a parameter there is told to be one.
    OidList,
    /// `pg_typeof(value)`: the name of its type.
    Typeof,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayFunction {
    form: Form,
    signature: Signature,
}

impl ArrayFunction {
    fn new(form: Form) -> Self {
        let arguments = match form {
            Form::AnyOf | Form::ArrayPrefix => 2,
            Form::ArrayOrEmpty | Form::OidList | Form::Typeof => 1,
        };
        Self {
            form,
            signature: Signature::any(arguments, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for ArrayFunction {
    fn name(&self) -> &str {
        match self.form {
            Form::AnyOf => "any_of",
            Form::ArrayOrEmpty => "array_or_empty",
            Form::ArrayPrefix => "array_prefix",
            Form::OidList => crate::semantics::parameters::OID_LIST,
            Form::Typeof => "pg_typeof",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> QueryResult<DataType> {
        Ok(match self.form {
            Form::AnyOf => DataType::Boolean,
            Form::ArrayOrEmpty => match args {
                [list @ DataType::List(_)] => list.clone(),
                _ => text_list(),
            },
            Form::ArrayPrefix => text_list(),
            Form::OidList => crate::semantics::parameters::oid_list(),
            Form::Typeof => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        if self.form == Form::Typeof {
            let name = sql_type(&args.arg_fields[0]).to_string();
            // without the size: numeric, character varying
            let name = name.split('(').next().unwrap_or_default().to_owned();
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))));
        }
        let rows = args.number_rows;
        let arrays = args
            .args
            .into_iter()
            .map(|a| a.into_array(rows))
            .collect::<QueryResult<Vec<_>>>()?;
        Ok(ColumnarValue::Array(match self.form {
            Form::AnyOf => any_of(&arrays[0], &arrays[1])?,
            Form::ArrayOrEmpty => array_or_empty(&arrays[0])?,
            Form::ArrayPrefix => array_prefix(&arrays[0], &arrays[1])?,
            Form::OidList => oid_list(&arrays[0])?,
            Form::Typeof => Arc::clone(&arrays[0]),
        }))
    }
}

fn text_list() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)))
}

/// Compares as text, so that numbers, names and arrays written as text all meet.
fn any_of(values: &ArrayRef, arrays: &ArrayRef) -> QueryResult<ArrayRef> {
    let values = texts(values)?;
    let found: BooleanArray = (0..values.len())
        .map(|row| {
            let elements = elements(arrays, row)?;
            let value = values.is_valid(row).then(|| values.value(row))?;
            let hit = elements.iter().flatten().any(|e| e == value);
            // nothing equal, but something unknown
            (hit || elements.iter().all(Option::is_some)).then_some(hit)
        })
        .collect();
    Ok(Arc::new(found))
}

fn array_or_empty(lists: &ArrayRef) -> QueryResult<ArrayRef> {
    let DataType::List(_) = lists.data_type() else {
        let mut none = ListBuilder::new(StringBuilder::new()).with_field(element());
        (0..lists.len()).for_each(|_| none.append(true));
        return Ok(Arc::new(none.finish()));
    };
    let list = lists.as_list::<i32>();
    // a NULL slot may still span values: rebuild the offsets so that it spans none
    let mut offsets = vec![0_i32];
    let mut taken = Vec::new();
    for row in 0..list.len() {
        if list.is_valid(row) {
            let (from, to) = (list.value_offsets()[row], list.value_offsets()[row + 1]);
            taken.extend((from..to).map(i64::from));
        }
        offsets.push(i32::try_from(taken.len()).unwrap_or(i32::MAX));
    }
    let taken = arrow::array::Int64Array::from(taken);
    let values = arrow::compute::take(list.values(), &taken, None)?;
    let DataType::List(field) = list.data_type() else {
        return Ok(Arc::clone(lists));
    };
    Ok(Arc::new(arrow::array::ListArray::try_new(
        Arc::clone(field),
        arrow::buffer::OffsetBuffer::new(offsets.into()),
        values,
        None,
    )?))
}

fn array_prefix(prefixes: &ArrayRef, arrays: &ArrayRef) -> QueryResult<ArrayRef> {
    let prefixes = texts(prefixes)?;
    let mut out = ListBuilder::new(StringBuilder::new()).with_field(element());
    for row in 0..prefixes.len() {
        let prefix = prefixes.is_valid(row).then(|| prefixes.value(row));
        for item in elements(arrays, row).unwrap_or_default() {
            let item = prefix.zip(item).map(|(p, i)| format!("{p}{i}"));
            out.values().append_option(item);
        }
        // `ARRAY(subquery)` over nothing is empty, not NULL
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

fn oid_list(arrays: &ArrayRef) -> QueryResult<ArrayRef> {
    let field = Field::new_list_field(DataType::UInt32, true);
    let mut out = ListBuilder::new(UInt32Builder::new()).with_field(field);
    for row in 0..arrays.len() {
        let items = elements(arrays, row);
        for item in items.iter().flatten() {
            let oid = match item.as_deref().map(str::parse) {
                None => None,
                Some(Ok(oid)) => Some(oid),
                Some(Err(_)) => {
                    let text = item.as_deref().unwrap_or_default();
                    return Err(Error::refused(
                        SqlState("22P02"),
                        format!("invalid input syntax for type oid: \"{text}\""),
                    )
                    .into());
                }
            };
            out.values().append_option(oid);
        }
        out.append(items.is_some());
    }
    Ok(Arc::new(out.finish()))
}

fn element() -> Field {
    Field::new("element", DataType::Utf8, true)
}

fn texts(array: &ArrayRef) -> QueryResult<StringArray> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// The elements of the array in a row as texts; `None` when the array is NULL or is none.
fn elements(arrays: &ArrayRef, row: usize) -> Option<Vec<Option<String>>> {
    if arrays.is_null(row) {
        return None;
    }
    match arrays.data_type() {
        DataType::List(_) => {
            let items = texts(&arrays.as_list::<i32>().value(row)).ok()?;
            Some(items.iter().map(|i| i.map(str::to_owned)).collect())
        }
        _ => parse_array(texts(arrays).ok()?.value(row)),
    }
}

/// Reads `{a,"b c",NULL}`, one dimension.
pub(in crate::system) fn parse_array(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    let mut chars = inner.chars().peekable();
    if chars.peek().is_none() {
        return Some(items);
    }
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut item = String::new();
        let quoted = chars.next_if_eq(&'"').is_some();
        loop {
            match chars.peek() {
                None | Some(',') if !quoted => break,
                None => return None,
                Some('"') if quoted => {
                    chars.next();
                    break;
                }
                Some('\\') => {
                    chars.next();
                    item.push(chars.next()?);
                }
                Some(c) => {
                    item.push(*c);
                    chars.next();
                }
            }
        }
        let null = !quoted && item.trim().eq_ignore_ascii_case("null");
        items.push((!null).then(|| if quoted { item } else { item.trim().to_owned() }));
        match chars.next() {
            Some(',') => {}
            None => return Some(items),
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_array;

    #[test]
    fn array_texts() {
        let read = |t: &str| parse_array(t);
        let some = |t: &str| Some(t.to_owned());
        assert_eq!(read("{}"), Some(vec![]));
        assert_eq!(read("{r, v}"), Some(vec![some("r"), some("v")]));
        assert_eq!(
            read(r#"{"a,b","c\"d",NULL,"NULL"}"#),
            Some(vec![some("a,b"), some("c\"d"), None, some("NULL")])
        );
        assert_eq!(read("r,v"), None);
        assert_eq!(read("{\"a}"), None);
    }
}
