//! Messages → batches of a table's columns.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use serde_json::Value;

use super::avro::Avro;
use super::messages::{Message, Messages, hex};
use super::options::{Beside, Format, Options};
use super::protobuf::Protobuf;
use crate::decode::columns::Cell;
use crate::decode::table::{Place, Table};
use crate::decode::{BadRows, json};
use crate::error::{Error, Result, SqlState};
use crate::stream::letters::{Form, Raw, Source};
use crate::types::TYPE_KEY;

/// Messages looked at to find out how much memory the columns will take.
const SAMPLE: usize = 16;

/// Errors tell of the line inside a message; which message it is, is told elsewhere.
pub(super) const MESSAGE: Place = Place {
    line: 1,
    start: 0,
    end: 0,
};

/// Makes batches of messages; keeps what it learnt of schemas.
#[derive(Debug)]
pub struct Decoder {
    options: Options,
    raw: Option<String>,
    avro: Option<Avro>,
    protobuf: Protobuf,
}

impl Decoder {
    /// For a source; `raw` is the column of raw values.
    pub fn new(options: &Options, raw: Option<&str>) -> Self {
        Self {
            raw: raw.map(str::to_owned),
            avro: options.registry.as_ref().map(Avro::new),
            protobuf: Protobuf::new(options),
            options: options.clone(),
        }
    }

    /// Asks the registry for schemas of these messages that are not known yet.
    ///
    /// # Errors
    /// 08006 when the registry does not answer. A schema that it does not have makes its messages bad.
    pub async fn prepare(&mut self, messages: &Messages) -> Result<()> {
        match (&mut self.avro, self.options.format) {
            (Some(avro), Format::Avro) => avro.learn(messages).await,
            (_, Format::Protobuf) => self.protobuf.learn(messages).await,
            _ => Ok(()),
        }
    }

    /// Rows of the messages of a range, all or none, in columns of `schema`. What the value says of a
    /// column that is filled from beside it counts for nothing.
    ///
    /// # Errors
    /// Class 22 or 42 for a message that does not fit.
    pub fn decode(
        &mut self,
        messages: &Messages,
        range: Range<usize>,
        schema: &SchemaRef,
    ) -> Result<Vec<RecordBatch>> {
        let beside = Columns::of(&self.options, schema)?;
        let chosen = messages.all().get(range).unwrap_or_default();
        match (self.options.format, &mut self.avro) {
            (Format::Json, _) => json_rows(messages, chosen, schema, &beside),
            (Format::Raw, _) => {
                let column = index_of(schema, self.raw.as_deref().unwrap_or_default())?;
                raw_rows(messages, chosen, schema, &beside, column)
            }
            (Format::Avro, Some(avro)) => avro.decode(messages, chosen, schema, &beside),
            (Format::Protobuf, _) => self.protobuf.decode(messages, chosen, schema, &beside),
            (Format::Avro, None) => Err(Error::Internal("a source without registry".to_owned())),
        }
    }
}

/// A message as it came, for a dead letter: what stood beside its value is the context.
pub fn raw(options: &Options, messages: &Messages, message: &Message, schema: &Schema) -> Raw {
    let columns = Columns::of(options, schema);
    let context = columns.map(|c| c.context(messages, message, schema));
    Raw {
        bytes: Bytes::copy_from_slice(messages.value(message).unwrap_or_default()),
        form: match options.format {
            Format::Json => Form::Json,
            Format::Avro => Form::Avro,
            Format::Protobuf => Form::Protobuf,
            Format::Raw => Form::Message,
        },
        context: context.ok().flatten().map(Arc::from),
        position: Some(format!(
            "{}/{}/{}",
            options.topic, message.partition, message.offset
        )),
    }
}

/// The columns that are filled from beside a message's value.
#[derive(Debug)]
pub(super) struct Columns<'o> {
    columns: Vec<(Beside, usize)>,
    topic: &'o str,
}

impl<'o> Columns<'o> {
    fn of(options: &'o Options, schema: &Schema) -> Result<Self> {
        let named = options.beside.iter();
        Ok(Self {
            columns: named
                .map(|(what, name)| Ok((*what, index_of(schema, name)?)))
                .collect::<Result<_>>()?,
            topic: &options.topic,
        })
    }

    /// True when it is filled so.
    pub(super) fn holds(&self, column: usize) -> bool {
        self.columns.iter().any(|(_, at)| *at == column)
    }

    /// These columns alone, a row per message.
    pub(super) fn batch<'m>(
        &self,
        messages: &'m Messages,
        chosen: impl Iterator<Item = &'m Message>,
        schema: &Schema,
    ) -> Result<Option<RecordBatch>> {
        if self.columns.is_empty() {
            return Ok(None);
        }
        let at: Vec<usize> = self.columns.iter().map(|(_, at)| *at).collect();
        // without metadata no column counts as having a default, so all rows stand in one batch
        let schema = SchemaRef::new(schema.project(&at)?);
        let own = Columns {
            columns: (0..)
                .zip(&self.columns)
                .map(|(n, (what, _))| (*what, n))
                .collect(),
            topic: self.topic,
        };
        let mut rows = table(&schema);
        let mut cells = vec![Cell::Absent; rows.width()];
        for message in chosen {
            own.fill(&mut cells, messages, message);
            rows.push(MESSAGE, &cells, &mut Vec::new())?;
        }
        Ok(batches(rows)?.pop())
    }

    /// The values of these columns as a JSON object, in the form in which a row may bring them.
    fn context(&self, messages: &Messages, message: &Message, schema: &Schema) -> Option<String> {
        let mut object = serde_json::Map::new();
        for (what, at) in &self.columns {
            let field = schema.field(*at);
            let value = match what {
                Beside::Key => messages.key(message).map(|key| match field.data_type() {
                    DataType::Binary => Value::from(hex(key)),
                    _ => Value::from(String::from_utf8_lossy(key)),
                }),
                Beside::Headers => messages.headers(message).map(|headers| {
                    let text = String::from_utf8_lossy(headers);
                    match field.metadata().contains_key(TYPE_KEY) {
                        true => serde_json::from_str(&text).unwrap_or_default(),
                        false => Value::from(text),
                    }
                }),
                Beside::Timestamp => message.micros.and_then(|micros| {
                    let at = chrono::DateTime::from_timestamp_micros(micros)?;
                    Some(Value::from(at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()))
                }),
                Beside::Topic => Some(Value::from(self.topic)),
                Beside::Partition => Some(Value::from(message.partition)),
                Beside::Offset => Some(Value::from(message.offset)),
            };
            object.insert(field.name().clone(), value.unwrap_or(Value::Null));
        }
        (!object.is_empty()).then(|| Value::Object(object).to_string())
    }

    pub(super) fn fill<'m>(
        &self,
        cells: &mut [Cell<'m>],
        messages: &'m Messages,
        message: &'m Message,
    ) where
        'o: 'm,
    {
        for (what, at) in &self.columns {
            let Some(cell) = cells.get_mut(*at) else {
                continue;
            };
            *cell = match what {
                Beside::Key => messages.key(message).map_or(Cell::Null, Cell::Bytes),
                Beside::Headers => messages.headers(message).map_or(Cell::Null, Cell::Bytes),
                Beside::Timestamp => message.micros.map_or(Cell::Null, Cell::Int),
                Beside::Topic => Cell::Text(self.topic),
                Beside::Partition => Cell::Int(i64::from(message.partition)),
                Beside::Offset => Cell::Int(message.offset),
            };
        }
    }
}

fn index_of(schema: &Schema, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        Error::refused(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{name}\" does not exist"),
        )
        .with_detail("the source of the table fills it")
    })
}

fn json_rows(
    messages: &Messages,
    chosen: &[Message],
    schema: &SchemaRef,
    beside: &Columns<'_>,
) -> Result<Vec<RecordBatch>> {
    // one look at all bytes is much quicker than one per message
    let whole = std::str::from_utf8(messages.values()).ok();
    let text_of = |message: &Message| match whole {
        Some(text) => Messages::place(message).and_then(|place| text.get(place)),
        None => messages
            .value(message)
            .and_then(|bytes| std::str::from_utf8(bytes).ok()),
    };
    let mut rows = table(schema);
    let mut cells = vec![Cell::Absent; rows.width()];
    let mut strays = Vec::new();
    for message in chosen.iter().take(SAMPLE) {
        if let Some(text) = text_of(message)
            && json::read(&rows, &mut cells, &mut strays, text, 1).is_ok()
        {
            rows.sample(text.len(), &cells);
        }
    }
    let bytes: usize = chosen
        .iter()
        .filter_map(|m| Messages::place(m).map(|p| p.len()))
        .sum();
    rows.expect(bytes);
    for message in chosen {
        let text = text_of(message).ok_or_else(not_utf8)?;
        json::read(&rows, &mut cells, &mut strays, text, 1)?;
        beside.fill(&mut cells, messages, message);
        rows.push(MESSAGE, &cells, &mut strays)?;
    }
    batches(rows)
}

fn raw_rows(
    messages: &Messages,
    chosen: &[Message],
    schema: &SchemaRef,
    beside: &Columns<'_>,
    column: usize,
) -> Result<Vec<RecordBatch>> {
    let mut rows = table(schema);
    let mut cells = vec![Cell::Absent; rows.width()];
    for message in chosen {
        beside.fill(&mut cells, messages, message);
        if let Some(cell) = cells.get_mut(column) {
            *cell = messages.value(message).map_or(Cell::Null, Cell::Bytes);
        }
        rows.push(MESSAGE, &cells, &mut Vec::new())?;
    }
    batches(rows)
}

/// A table of rows that are taken all or none.
pub(super) fn table(schema: &SchemaRef) -> Table {
    let nothing = Source::Text {
        text: Bytes::new(),
        form: Form::Json,
        context: None,
    };
    Table::new(schema, nothing, BadRows::Refuse)
}

pub(super) fn batches(rows: Table) -> Result<Vec<RecordBatch>> {
    let pieces = rows.finish()?.pieces;
    Ok(pieces.into_iter().map(|piece| piece.batch).collect())
}

fn not_utf8() -> Error {
    Error::refused(
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        "the message is not UTF-8",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    use catalog::{Column, SqlType};

    use super::*;
    use crate::kafka::options::declare;
    use crate::types;

    fn column(name: &str, sql_type: SqlType) -> Column {
        Column {
            since: None,
            name: name.to_owned(),
            sql_type,
            nullable: true,
            default: None,
            generated: None,
            comment: None,
        }
    }

    fn decoder(columns: &[Column], pairs: &[(&str, &str)]) -> (Decoder, Options, SchemaRef) {
        let given: BTreeMap<String, String> = [("brokers", "h"), ("topic", "t")]
            .iter()
            .chain(pairs)
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let kept = declare(&given, columns).unwrap();
        let options = Options::of(&kept, columns).unwrap();
        let raw = options.raw_column(columns).map(str::to_owned);
        let fields: Vec<_> = columns
            .iter()
            .map(|c| types::field(&c.name, &c.sql_type, true))
            .collect();
        let decoder = Decoder::new(&options, raw.as_deref());
        (decoder, options, Arc::new(Schema::new(fields)))
    }

    #[test]
    fn json_and_what_stands_beside_it() {
        let columns = [
            column("id", SqlType::Int8),
            column("at", SqlType::Timestamptz),
            column("o", SqlType::Int8),
        ];
        let (mut decoder, options, schema) = decoder(
            &columns,
            &[("timestamp_column", "at"), ("offset_column", "o")],
        );
        let values: [Option<&[u8]>; 3] = [
            Some(br#"{"id":1}"#),
            // the offset is the broker's to give
            Some(b"{ \"id\": 2,\n \"o\": 77 }"),
            Some(br#"{"id":3}"#),
        ];
        let messages = Messages::of(&options, &values);
        let batches = decoder.decode(&messages, 0..3, &schema).unwrap();
        assert_eq!(batches.len(), 1);
        let ids = batches[0].column(0).as_primitive::<Int64Type>();
        assert_eq!(ids.values(), &[1, 2, 3]);
        let times = batches[0]
            .column(1)
            .as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.values(), &[0, 1, 2]);
        let offsets = batches[0].column(2).as_primitive::<Int64Type>();
        assert_eq!(offsets.values(), &[0, 1, 2]);
    }

    #[test]
    fn a_bad_message_is_told() {
        let columns = [column("id", SqlType::Int8), column("t", SqlType::Text)];
        let (mut decoder, options, schema) = decoder(&columns, &[]);
        for (bad, state) in [
            (&b"{\"id\":1} {\"id\":2}"[..], "22P02"),
            (b"", "22P02"),
            (b"  \n ", "22P02"),
            (b"null", "22P02"),
            (b"[1]", "22P02"),
            (b"{\"id\":\"x\"}", "22P02"),
            (b"{\"no\":1}", "42703"),
            (b"{\"t\":\"\xff\"}", "22021"),
        ] {
            let messages = Messages::of(&options, &[Some(b"{\"id\":1}"), Some(bad)]);
            let e = decoder.decode(&messages, 0..2, &schema).unwrap_err();
            assert_eq!(e.state().0, state, "{}", String::from_utf8_lossy(bad));
            // the one before it is good
            decoder.decode(&messages, 0..1, &schema).unwrap();
        }
        // two halves of a character do not make one of two messages
        let halves: [Option<&[u8]>; 2] = [Some(b"{\"t\":\"\xc3"), Some(b"\xa4\"}")];
        let messages = Messages::of(&options, &halves);
        assert!(decoder.decode(&messages, 0..1, &schema).is_err());
        assert!(decoder.decode(&messages, 1..2, &schema).is_err());
    }

    #[test]
    fn raw_values_are_taken_as_they_are() {
        let columns = [column("v", SqlType::Bytea)];
        let (mut decoder, options, schema) = decoder(&columns, &[("format", "raw")]);
        let messages = Messages::of(&options, &[Some(b"\x00\xff"), None, Some(b"")]);
        let batches = decoder.decode(&messages, 0..3, &schema).unwrap();
        let bytes: Vec<_> = batches[0].column(0).as_binary::<i32>().iter().collect();
        assert_eq!(bytes, [Some(&b"\x00\xff"[..]), None, Some(b"")]);
    }
}
