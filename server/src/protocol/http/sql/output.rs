//! Results in the forms of `/v1/sql`, batch by batch.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::error::{Error, Report, Result};
use crate::protocol::http::problem::error_object;
use crate::types::{TYPE_KEY, sql_type};

/// The forms a result comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"columns":[…],"rows":[[…]]}`
    Json,
    /// One object per row and line.
    NdJson,
    /// With a header line.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Form {
    /// The form of an accepted media type.
    pub(super) fn of(kind: &str) -> Option<Self> {
        match kind {
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            "application/x-ndjson" | "application/ndjson" => Some(Self::NdJson),
            "text/csv" | "text/*" => Some(Self::Csv),
            "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// Its media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::NdJson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Writes one result.
pub(super) struct Writer {
    schema: SchemaRef,
    state: State,
}

enum State {
    Json { first: bool },
    NdJson,
    Csv,
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Writer {
    /// For rows of that schema.
    pub(super) fn new(form: Form, schema: SchemaRef) -> Result<Self> {
        let state = match form {
            Form::Json => State::Json { first: true },
            Form::NdJson => State::NdJson,
            Form::Csv => State::Csv,
            Form::Arrow => State::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema)?)),
        };
        if form == Form::Csv {
            flat(&schema)?;
        }
        Ok(Self { schema, state })
    }

    /// What comes before all rows.
    pub(super) fn head(&mut self) -> Result<Bytes> {
        match &mut self.state {
            State::Json { .. } => {
                let columns: Vec<_> = self
                    .schema
                    .fields()
                    .iter()
                    .map(|f| json!({ "name": f.name(), "type": sql_type(f).to_string() }))
                    .collect();
                let columns = serde_json::Value::from(columns);
                Ok(format!("{{\"columns\":{columns},\"rows\":[").into())
            }
            State::NdJson => Ok(Bytes::new()),
            State::Csv => csv(&RecordBatch::new_empty(Arc::clone(&self.schema)), true),
            State::Arrow(writer) => Ok(taken(writer)),
        }
    }

    /// Some rows.
    pub(super) fn rows(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        match &mut self.state {
            State::Json { first } => json_rows(batch, first),
            State::NdJson => ndjson_rows(batch),
            State::Csv => csv(batch, false),
            State::Arrow(writer) => {
                writer.write(batch)?;
                Ok(taken(writer))
            }
        }
    }

    /// What comes after all rows.
    pub(super) fn tail(&mut self) -> Result<Bytes> {
        match &mut self.state {
            State::Json { .. } => Ok(Bytes::from_static(b"]}\n")),
            State::NdJson | State::Csv => Ok(Bytes::new()),
            State::Arrow(writer) => {
                writer.finish()?;
                Ok(taken(writer))
            }
        }
    }

    /// The end of a result that failed on the way, if the form can tell.
    pub(super) fn error_tail(&self, report: &Report) -> Option<Bytes> {
        let error = error_object(report);
        match &self.state {
            State::Json { .. } => Some(format!("],\"error\":{error}}}\n").into()),
            State::NdJson => Some(format!("{{\"error\":{error}}}\n").into()),
            State::Csv | State::Arrow(_) => None,
        }
    }
}

/// The answer to a statement without rows.
pub(super) fn command(form: Form, tag: &str, rows: Option<u64>) -> Result<Bytes> {
    match form {
        Form::Json | Form::NdJson => {
            let body = json!({ "columns": [], "rows": [], "command": tag, "rows_affected": rows });
            Ok(format!("{body}\n").into())
        }
        Form::Csv => Ok(Bytes::new()),
        Form::Arrow => {
            let mut writer = StreamWriter::try_new(Vec::new(), &Schema::empty())?;
            writer.finish()?;
            Ok(taken(&mut writer))
        }
    }
}

fn taken(writer: &mut StreamWriter<Vec<u8>>) -> Bytes {
    std::mem::take(writer.get_mut()).into()
}

fn json_rows(batch: &RecordBatch, first: &mut bool) -> Result<Bytes> {
    let options = options();
    let mut columns = encoders(batch, &options)?;
    let mut out = Vec::new();
    for row in 0..batch.num_rows() {
        if !std::mem::replace(first, false) {
            out.push(b',');
        }
        out.extend_from_slice(b"\n[");
        for (i, column) in columns.iter_mut().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            column.write(row, &mut out);
        }
        out.push(b']');
    }
    Ok(out.into())
}

fn ndjson_rows(batch: &RecordBatch) -> Result<Bytes> {
    let options = options();
    let mut columns = encoders(batch, &options)?;
    let schema = batch.schema();
    let names: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| serde_json::Value::from(f.name().as_str()).to_string())
        .collect();
    let mut out = Vec::new();
    for row in 0..batch.num_rows() {
        out.push(b'{');
        for (i, (column, name)) in columns.iter_mut().zip(&names).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            column.write(row, &mut out);
        }
        out.extend_from_slice(b"}\n");
    }
    Ok(out.into())
}

/// How one column's values become JSON.
enum Column<'a> {
    /// `json` and `jsonb`: the text is JSON already.
    Json(&'a arrow::array::StringArray),
    /// Everything else, by arrow's own encoder.
    Other(NullableEncoder<'a>),
}

impl Column<'_> {
    fn write(&mut self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Json(texts) if texts.is_null(row) => out.extend_from_slice(b"null"),
            Self::Json(texts) => {
                let text = texts.value(row);
                // a stored text that is no JSON must not break the answer
                match serde_json::from_str::<IgnoredAny>(text) {
                    // line breaks between tokens are blanks, and one row is one line
                    Ok(_) => out.extend(text.bytes().map(|b| match b {
                        b'\n' | b'\r' => b' ',
                        other => other,
                    })),
                    Err(_) => {
                        let quoted = serde_json::Value::from(text).to_string();
                        out.extend_from_slice(quoted.as_bytes());
                    }
                }
            }
            Self::Other(encoder) if encoder.is_null(row) => out.extend_from_slice(b"null"),
            Self::Other(encoder) => encoder.encode(row, out),
        }
    }
}

fn options() -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true)
}

fn encoders<'a>(batch: &'a RecordBatch, options: &'a EncoderOptions) -> Result<Vec<Column<'a>>> {
    let fields: &'a [FieldRef] = batch.schema_ref().fields();
    let columns = fields.iter().zip(batch.columns());
    columns
        .map(|(field, array)| {
            let kind = field.metadata().get(TYPE_KEY).map(String::as_str);
            match array.as_string_opt::<i32>() {
                Some(texts) if matches!(kind, Some("json" | "jsonb")) => Ok(Column::Json(texts)),
                Some(_) | None => Ok(Column::Other(make_encoder(field, array, options)?)),
            }
        })
        .collect()
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Bytes> {
    let mut writer = WriterBuilder::new().with_header(header).build(Vec::new());
    writer.write(batch)?;
    Ok(writer.into_inner().into())
}

fn flat(schema: &Schema) -> Result<()> {
    let nested = schema.fields().iter().find(|f| {
        matches!(
            f.data_type(),
            DataType::List(_)
                | DataType::LargeList(_)
                | DataType::FixedSizeList(..)
                | DataType::Struct(_)
                | DataType::Map(..)
                | DataType::Union(..)
        )
    });
    match nested {
        None => Ok(()),
        Some(field) => Err(Error::unsupported(
            format!("column \"{}\" has no form in CSV", field.name()),
            "accept application/json, or cast the column to text",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        ArrayRef, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::Field;
    use std::collections::HashMap;

    fn batch() -> RecordBatch {
        let json = Field::new("j", DataType::Utf8, true)
            .with_metadata(HashMap::from([(TYPE_KEY.to_owned(), "jsonb".to_owned())]));
        let columns: Vec<(Field, ArrayRef)> = vec![
            (
                Field::new("n", DataType::Int64, true),
                Arc::new(Int64Array::from(vec![Some(1), None])),
            ),
            (
                Field::new("s", DataType::Utf8, true),
                Arc::new(StringArray::from(vec!["a\"b", "x,y"])),
            ),
            (
                json,
                Arc::new(StringArray::from(vec![
                    Some("{\"k\":[1]}"),
                    Some("nonsense"),
                ])),
            ),
            (
                Field::new("d", DataType::Decimal128(10, 2), true),
                Arc::new(
                    Decimal128Array::from(vec![1234, -5])
                        .with_precision_and_scale(10, 2)
                        .unwrap(),
                ),
            ),
            (
                Field::new("f", DataType::Float64, true),
                Arc::new(Float64Array::from(vec![0.5, f64::NAN])),
            ),
            (
                Field::new(
                    "t",
                    DataType::Timestamp(
                        arrow::datatypes::TimeUnit::Microsecond,
                        Some("UTC".into()),
                    ),
                    true,
                ),
                Arc::new(TimestampMicrosecondArray::from(vec![0, 1_500_000]).with_timezone("UTC")),
            ),
        ];
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }

    fn written(form: Form) -> String {
        let batch = batch();
        let mut writer = Writer::new(form, batch.schema()).unwrap();
        let parts = [
            writer.head().unwrap(),
            writer.rows(&batch).unwrap(),
            writer.rows(&batch.slice(0, 1)).unwrap(),
            writer.tail().unwrap(),
        ];
        String::from_utf8(parts.concat()).unwrap()
    }

    #[test]
    fn json_is_json() {
        let value: serde_json::Value = serde_json::from_str(&written(Form::Json)).unwrap();
        assert_eq!(value["columns"][2], json!({"name": "j", "type": "jsonb"}));
        assert_eq!(value["rows"].as_array().unwrap().len(), 3);
        assert_eq!(value["rows"][0][2], json!({"k": [1]}));
        assert_eq!(value["rows"][1][2], json!("nonsense"));
        assert_eq!(value["rows"][1][0], json!(null));
        assert_eq!(value["rows"][0][3].to_string().trim_matches('"'), "12.34");
        assert_eq!(value["rows"][1][4], json!(null), "NaN has no JSON");
        assert!(
            value["rows"][0][5]
                .as_str()
                .unwrap()
                .starts_with("1970-01-01T00:00:00")
        );
    }

    #[test]
    fn ndjson_and_csv_have_a_line_per_row() {
        let text = written(Form::NdJson);
        assert_eq!(text.lines().count(), 3);
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(row["s"].is_string());
        }
        let text = written(Form::Csv);
        assert!(text.starts_with("n,s,j,d,f,t\n"), "{text}");
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("\"x,y\""));
    }

    #[test]
    fn failures_end_the_json_properly() {
        let mut writer = Writer::new(Form::Json, batch().schema()).unwrap();
        let head = writer.head().unwrap();
        let report = Error::undefined_table("t").report();
        let tail = writer.error_tail(&report).unwrap();
        let text = String::from_utf8([head, tail].concat()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["error"]["code"], "42P01");
    }
}
