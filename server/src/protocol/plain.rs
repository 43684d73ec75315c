//! Results in the types every Arrow client reads: dictionaries, views and run-end encoding inside the
//! engine leave as plain arrays.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use crate::error::Result;

/// The schema as it goes on the wire. A result column promises nothing about NULLs: what the planner
/// knows of them changes with the parameters, and clients compare the announced schema with the sent.
pub(super) fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema
        .fields()
        .iter()
        .map(|field| Arc::new(plain_field(field).as_ref().clone().with_nullable(true)))
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// A batch in the schema [`plain_schema`] made of its own. Columns that are plain already are shared.
pub(super) fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(
            |(column, field)| match column.data_type() == field.data_type() {
                true => Ok(Arc::clone(column)),
                false => cast(column, field.data_type()),
            },
        )
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let ty = plain_type(field.data_type());
    match ty == *field.data_type() {
        true => Arc::clone(field),
        false => Arc::new(
            Field::new(field.name(), ty, field.is_nullable())
                .with_metadata(field.metadata().clone()),
        ),
    }
}

fn plain_type(ty: &DataType) -> DataType {
    match ty {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::RunEndEncoded(_, value) => plain_type(value.data_type()),
        DataType::List(f) | DataType::ListView(f) => DataType::List(plain_field(f)),
        DataType::LargeList(f) | DataType::LargeListView(f) => DataType::LargeList(plain_field(f)),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(plain_field(f), *n),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(plain_field).collect::<Fields>())
        }
        DataType::Map(f, sorted) => DataType::Map(plain_field(f), *sorted),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, DictionaryArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    #[test]
    fn views_and_dictionaries_become_text() {
        let view = StringViewArray::from(vec![Some("a longer text than twelve bytes"), None]);
        let dict: DictionaryArray<Int32Type> = vec![Some("x"), Some("y")].into_iter().collect();
        let schema = Schema::new(vec![
            Field::new("v", view.data_type().clone(), true),
            Field::new("d", dict.data_type().clone(), true),
        ]);
        let batch = RecordBatch::try_new(
            Arc::new(schema.clone()),
            vec![Arc::new(view), Arc::new(dict)],
        )
        .unwrap();
        let plain = plain_schema(&schema);
        let batch = plain_batch(&batch, &plain).unwrap();
        assert_eq!(batch.column(1).as_string::<i32>().value(1), "y");
        assert_eq!(*plain.field(0).data_type(), DataType::Utf8);
        assert!(batch.column(0).is_null(1));
    }
}
