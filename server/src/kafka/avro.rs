//! Avro values in Confluent's frame: a zero byte, the schema's id in four bytes, the record.
//!
//! Every id has a decoder of its own, made from the writer's schema. Fields go to the columns of their
//! names; what a column makes of a value is decided where all rows are cast.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};

use super::decode::Columns;
use super::messages::{Message, Messages};
use super::options::Registry;
use super::registry::{Kind, Registered, Schemas, framed, no_frame, no_schema, unusable};
use crate::error::{Error, Result, SqlState};
use crate::values::{ColumnWriter, Style, WireFormat};

/// Rows that a decoder takes before it is emptied; a poll never brings more.
const ROWS: usize = 1 << 17;
/// Schemas that are kept; a topic has a handful.
const MOST_SCHEMAS: usize = 1024;

/// What is known of one id.
enum Known {
    /// The registry has no such schema, or one that cannot be used: why.
    Bad(Arc<Error>),
    /// The schema, and a decoder while it is in order.
    Good(String, Option<Box<Decoder>>),
}

/// Decodes messages of one source.
pub(super) struct Avro {
    schemas: Schemas,
    known: HashMap<u32, Known>,
}

impl std::fmt::Debug for Avro {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Avro({} schemas)", self.known.len())
    }
}

impl Avro {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            schemas: Schemas::new(registry),
            known: HashMap::new(),
        }
    }

    /// Asks for the schemas of these messages that are not known.
    pub(super) async fn learn(&mut self, messages: &Messages) -> Result<()> {
        for message in messages.all() {
            let Some((id, _)) = messages.value(message).and_then(framed) else {
                continue;
            };
            if self.known.contains_key(&id) {
                continue;
            }
            if self.known.len() >= MOST_SCHEMAS {
                self.known.clear();
            }
            let known = match self.schemas.schema(id).await {
                Ok(Some(schema)) if alone(&schema) => Known::Good(schema.text, None),
                Ok(Some(_)) => Known::Bad(Arc::new(unsupported(id))),
                Ok(None) => Known::Bad(Arc::new(no_schema(id))),
                Err(e) => return Err(e),
            };
            self.known.insert(id, known);
        }
        Ok(())
    }

    /// Rows of messages, all or none; one batch per schema, in the order in which schemas first appear.
    pub(super) fn decode(
        &mut self,
        messages: &Messages,
        chosen: &[Message],
        schema: &SchemaRef,
        beside: &Columns<'_>,
    ) -> Result<Vec<RecordBatch>> {
        let mut order: Vec<u32> = Vec::new();
        let mut groups: BTreeMap<u32, Vec<&Message>> = BTreeMap::new();
        for message in chosen {
            let value = messages.value(message).unwrap_or_default();
            let (id, _) = framed(value).ok_or_else(no_frame)?;
            let group = groups.entry(id).or_default();
            if group.is_empty() {
                order.push(id);
            }
            group.push(message);
        }
        let mut batches = Vec::with_capacity(order.len());
        for id in order {
            let group = groups.remove(&id).unwrap_or_default();
            let rows = self.rows(id, messages, &group)?;
            let batch = to_table(&rows, schema, beside)?;
            batches.push(match beside.batch(messages, group.into_iter(), schema)? {
                Some(more) => side_by_side(&batch, &more)?,
                None => batch,
            });
        }
        Ok(batches)
    }

    /// The records of messages that all have one schema.
    fn rows(&mut self, id: u32, messages: &Messages, group: &[&Message]) -> Result<RecordBatch> {
        let (text, slot) = match self.known.get_mut(&id) {
            Some(Known::Good(text, decoder)) => (text, decoder),
            Some(Known::Bad(e)) => return Err(Error::Shared(Arc::clone(e))),
            None => return Err(no_schema(id)),
        };
        // what fails leaves its decoder half filled: it is put back only in order
        let mut decoder = match slot.take() {
            Some(decoder) => decoder,
            None => Box::new(decoder_of(id, text)?),
        };
        for message in group {
            let value = messages.value(message).unwrap_or_default();
            let taken = decoder
                .decode(value)
                .map_err(|e| malformed(&e.to_string()))?;
            if taken != value.len() {
                return Err(malformed("the record ends before or behind the message"));
            }
        }
        let batch = decoder.flush().map_err(|e| malformed(&e.to_string()))?;
        match batch {
            Some(batch) if batch.num_rows() == group.len() => {
                *slot = Some(decoder);
                Ok(batch)
            }
            _ => Err(malformed("the record ends before or behind the message")),
        }
    }
}

fn decoder_of(id: u32, text: &str) -> Result<Decoder> {
    let fingerprint = Fingerprint::Id(id);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store
        .set(fingerprint, AvroSchema::new(text.to_owned()))
        .and_then(|_| {
            ReaderBuilder::new()
                .with_batch_size(ROWS)
                .with_writer_schema_store(store)
                .with_active_fingerprint(fingerprint)
                .build_decoder()
        })
        .map_err(|e| unusable(id, e.to_string()))
}

/// The columns of a table, by name; composite values as JSON where the table has a text.
fn to_table(rows: &RecordBatch, schema: &Schema, beside: &Columns<'_>) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (given, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let Ok(column) = schema.index_of(given.name()) else {
            return Err(Error::refused(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{}\" does not exist", given.name()),
            )
            .with_detail("the schema of the message has a field of that name"));
        };
        if beside.holds(column) {
            continue;
        }
        let array = plain(given, array, schema.field(column))?;
        fields.push(Field::new(given.name(), array.data_type().clone(), true));
        arrays.push(array);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        arrays,
        &options,
    )?)
}

/// A column of records in a form that casts know.
fn plain(given: &Field, array: &ArrayRef, wanted: &Field) -> Result<ArrayRef> {
    match (given.data_type(), wanted.data_type()) {
        (DataType::Dictionary(_, value), _) => Ok(cast(array, value)?),
        (DataType::FixedSizeBinary(16), DataType::Utf8) => {
            let ids = array.as_fixed_size_binary();
            let text =
                |bytes: &[u8]| uuid::Uuid::from_slice(bytes).map(|id| id.hyphenated().to_string());
            let texts: arrow::array::StringArray = ids
                .iter()
                .map(|bytes| bytes.and_then(|bytes| text(bytes).ok()))
                .collect();
            Ok(Arc::new(texts))
        }
        (DataType::FixedSizeBinary(_), DataType::Binary) => Ok(cast(array, &DataType::Binary)?),
        (DataType::Struct(_) | DataType::Map(..) | DataType::Union(..), DataType::Utf8) => {
            let writer = ColumnWriter::new(given, array, WireFormat::Text, Style::default())?;
            let mut texts = StringBuilder::new();
            let mut buffer = Vec::new();
            for row in 0..array.len() {
                if writer.is_null(row) {
                    texts.append_null();
                    continue;
                }
                buffer.clear();
                writer.write(row, &mut buffer)?;
                texts.append_value(String::from_utf8_lossy(&buffer));
            }
            Ok(Arc::new(texts.finish()))
        }
        _ => Ok(Arc::clone(array)),
    }
}

fn side_by_side(left: &RecordBatch, right: &RecordBatch) -> Result<RecordBatch> {
    let fields: Vec<_> = left
        .schema_ref()
        .fields()
        .iter()
        .chain(right.schema_ref().fields())
        .cloned()
        .collect();
    let arrays = left.columns().iter().chain(right.columns()).cloned();
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        arrays.collect(),
    )?)
}

fn alone(schema: &Registered) -> bool {
    schema.kind == Kind::Avro && schema.references.is_empty()
}

fn unsupported(id: u32) -> Error {
    Error::unsupported(
        format!("schema {id} of the registry is not supported"),
        "register an Avro schema that stands alone, without references",
    )
}

fn malformed(what: &str) -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        "the message is no record of its schema",
    )
    .with_detail(what)
}
