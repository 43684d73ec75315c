//! Dead letters: rows that a door brought and a table refused, kept as they came.
//!
//! Owns what a letter is, where the bytes of a decoded row are found, and the columns letters are
//! stored in. Letters are further parts of the record that stores the good rows of their batch, so a
//! batch is never half known. Who may see them is decided where they are read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Date32Array, Int64Array, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use catalog::Oid;

use crate::error::{Error, Result, SqlState};
use crate::values;

/// Bytes of a row that are kept; what is longer is cut and marked.
pub const MAX_RAW: usize = 1 << 20;
/// Memory that the letters of one batch may take.
const MAX_LETTERS: usize = 64 << 20;
/// What a letter takes besides its texts.
const LETTER_BYTES: usize = 256;
const DAY_MICROS: i64 = 86_400_000_000;

/// How the bytes of a row are to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A JSON object; the context, if there is one, is another with values that stood beside it.
    Json,
    /// A record of CSV; the context is its header, a JSON array of names.
    Csv,
    /// A line of `COPY` in text format; the context is a [`crate::values::CopyOptions`] of its own words.
    CopyText,
    /// A record of `COPY` in csv format.
    CopyCsv,
    /// A tuple of `COPY` in binary format.
    CopyBinary,
    /// An event of Segment's API; the context is what it shared with its request.
    Segment,
    /// A message's value in Avro, whose schema a registry has. Not read again.
    Avro,
    /// A message's value in Protobuf, whose schema its source has. Not read again.
    Protobuf,
    /// A message's value as it is. Not read again.
    Message,
}

impl Form {
    /// Those that can be read again.
    pub const READABLE: [Self; 6] = [
        Self::Json,
        Self::Csv,
        Self::CopyText,
        Self::CopyCsv,
        Self::CopyBinary,
        Self::Segment,
    ];

    /// Its word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::CopyText => "copy-text",
            Self::CopyCsv => "copy-csv",
            Self::CopyBinary => "copy-binary",
            Self::Segment => "segment",
            Self::Avro => "avro",
            Self::Protobuf => "protobuf",
            Self::Message => "message",
        }
    }

    /// The form of a word, when rows of it can be read again.
    pub fn of(word: &str) -> Option<Self> {
        Self::READABLE.into_iter().find(|f| f.word() == word)
    }
}

/// A row as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Its bytes.
    pub bytes: Bytes,
    /// How they are to be read.
    pub form: Form,
    /// What reading them needs besides.
    pub context: Option<Arc<str>>,
    /// Where it stood: `line 3`, `row 7`, `events/0/1234`.
    pub position: Option<String>,
}

/// A refused row with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The row.
    pub raw: Raw,
    /// The code of the refusal.
    pub state: SqlState,
    /// Its message.
    pub message: String,
}

/// Where a row lies in its [`Source`].
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Its line in a text, from 1.
    pub line: u32,
    /// Its first byte in a text.
    pub start: u32,
    /// The byte after its last one.
    pub end: u32,
}

/// What rows were read from.
#[derive(Debug, Clone)]
pub enum Source {
    /// One text of many rows.
    Text {
        /// The text.
        text: Bytes,
        /// How a row of it is read.
        form: Form,
        /// What reading a row needs besides.
        context: Option<Arc<str>>,
    },
    /// What the lines of a text were made of, one each.
    Made(Arc<[Raw]>),
}

impl Source {
    /// The bytes of one row.
    pub fn raw(&self, span: Span) -> Raw {
        match self {
            Self::Text {
                text,
                form,
                context,
            } => {
                let end = (span.end as usize).min(text.len());
                let start = (span.start as usize).min(end);
                Raw {
                    bytes: text.slice(start..end),
                    form: *form,
                    context: context.clone(),
                    position: Some(format!("line {}", span.line)),
                }
            }
            Self::Made(raws) => {
                let place = (span.line as usize).saturating_sub(1);
                raws.get(place).cloned().unwrap_or_else(|| Raw {
                    bytes: Bytes::new(),
                    form: Form::Message,
                    context: None,
                    position: Some(format!("line {}", span.line)),
                })
            }
        }
    }
}

/// Where the bytes of a batch's rows are found when one of them is refused.
#[derive(Debug, Clone)]
pub enum Raws {
    /// They came as Arrow data: a row is rendered as a JSON object. The number of the first row.
    Rendered(u64),
    /// They were cut out of a source.
    Cut {
        /// What they were read from.
        source: Source,
        /// One per row.
        spans: Vec<Span>,
    },
    /// As they are.
    Each(Vec<Raw>),
}

/// Decoded rows with the way back to their bytes.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The rows, by the names of the table's columns.
    pub batch: RecordBatch,
    /// Their bytes.
    pub raws: Raws,
}

impl Piece {
    /// Rows that came as Arrow data; `first` is the number of the first one, from 1.
    pub fn arrow(batch: RecordBatch, first: u64) -> Self {
        Self {
            batch,
            raws: Raws::Rendered(first),
        }
    }

    /// The bytes of a row.
    ///
    /// # Errors
    /// When a value has no JSON form.
    pub fn raw(&self, row: usize) -> Result<Raw> {
        match &self.raws {
            Raws::Rendered(first) => {
                let one = self.batch.slice(row, 1);
                Ok(Raw {
                    bytes: values::json_object(&one)?.into(),
                    form: Form::Json,
                    context: None,
                    position: Some(format!("row {}", first + row as u64)),
                })
            }
            Raws::Cut { source, spans } => match spans.get(row) {
                Some(span) => Ok(source.raw(*span)),
                None => Err(lost(row)),
            },
            Raws::Each(raws) => raws.get(row).cloned().ok_or_else(|| lost(row)),
        }
    }
}

fn lost(row: usize) -> Error {
    Error::Internal(format!("row {row} of a batch has no bytes"))
}

/// Letters of one batch, bounded.
#[derive(Debug, Default)]
pub struct Letters {
    letters: Vec<Letter>,
    bytes: usize,
}

impl Letters {
    /// Adds a row that was refused because of `error`.
    ///
    /// # Errors
    /// 54000 when the letters of the batch take too much memory.
    pub fn add(&mut self, raw: Raw, error: &Error) -> Result<()> {
        let report = error.report();
        let message = match report.detail {
            Some(detail) => format!("{} ({detail})", report.message),
            None => report.message,
        };
        self.push(Letter {
            raw,
            state: report.state,
            message,
        })
    }

    /// Adds a letter.
    ///
    /// # Errors
    /// 54000 when the letters of the batch take too much memory.
    pub fn push(&mut self, letter: Letter) -> Result<()> {
        let raw = &letter.raw;
        let context = raw.context.as_ref().map_or(0, |c| c.len());
        self.bytes += raw.bytes.len().min(MAX_RAW) + context + letter.message.len() + LETTER_BYTES;
        if self.bytes > MAX_LETTERS {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "too many rows of one batch cannot be stored",
            )
            .with_detail(format!(
                "{} rows were refused so far; the last one: {}",
                self.letters.len() + 1,
                letter.message
            ))
            .with_hint("nothing was stored; send smaller batches"));
        }
        self.letters.push(letter);
        Ok(())
    }

    /// Adds the letters of another part of the batch.
    ///
    /// # Errors
    /// 54000 when the letters of the batch take too much memory.
    pub fn append(&mut self, other: Self) -> Result<()> {
        other.letters.into_iter().try_for_each(|l| self.push(l))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// True when no row was refused.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Letter> {
        self.letters.iter()
    }
}

/// The table that letters are about.
#[derive(Debug, Clone)]
pub struct Addressee {
    /// Its id: names may change.
    pub oid: Oid,
    /// Its schema's name when the row came.
    pub schema: String,
    /// Its name when the row came.
    pub name: String,
    /// The door the row came by.
    pub door: String,
}

/// The columns letters are stored in.
pub fn schema() -> SchemaRef {
    let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("id", false),
        Field::new("table_oid", DataType::Int64, false),
        text("table_schema", false),
        text("table_name", false),
        text("door", false),
        text("position", true),
        text("format", false),
        text("context", true),
        Field::new("raw", DataType::Binary, false),
        Field::new("truncated", DataType::Boolean, false),
        text("sqlstate", false),
        text("message", false),
        moment("rejected_at"),
        Field::new("day", DataType::Date32, false),
    ]))
}

/// A column of times in an internal table.
pub(super) fn moment(name: &str) -> Field {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Field::new(name, utc, false)
}

/// The day of a moment, as internal tables are partitioned by.
pub fn day(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(DAY_MICROS)).unwrap_or(i32::MAX)
}

/// Letters as rows of their table.
pub fn batch(to: &Addressee, letters: &Letters, at_micros: i64) -> Result<RecordBatch> {
    let letters = &letters.letters;
    let rows = letters.len();
    let all = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; rows])) };
    let (mut ids, mut positions) = (StringBuilder::new(), StringBuilder::new());
    let (mut forms, mut contexts) = (StringBuilder::new(), StringBuilder::new());
    let (mut raws, mut messages) = (BinaryBuilder::new(), StringBuilder::new());
    let mut truncated = Vec::with_capacity(rows);
    let mut states = StringBuilder::new();
    for letter in letters {
        let Raw {
            bytes,
            form,
            context,
            position,
        } = &letter.raw;
        ids.append_value(uuid::Uuid::now_v7().to_string());
        positions.append_option(position.as_deref());
        forms.append_value(form.word());
        contexts.append_option(context.as_deref());
        raws.append_value(&bytes[..bytes.len().min(MAX_RAW)]);
        truncated.push(bytes.len() > MAX_RAW);
        states.append_value(letter.state.0);
        messages.append_value(&letter.message);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids.finish()),
        Arc::new(Int64Array::from(vec![i64::from(to.oid.0); rows])),
        all(&to.schema),
        all(&to.name),
        all(&to.door),
        Arc::new(positions.finish()),
        Arc::new(forms.finish()),
        Arc::new(contexts.finish()),
        Arc::new(raws.finish()),
        Arc::new(BooleanArray::from(truncated)),
        Arc::new(states.finish()),
        Arc::new(messages.finish()),
        Arc::new(TimestampMicrosecondArray::from(vec![at_micros; rows]).with_timezone("UTC")),
        Arc::new(Date32Array::from(vec![day(at_micros); rows])),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// One more try of a letter.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The letter's id.
    pub letter: String,
    /// What was wrong with it; nothing when it passed.
    pub error: Option<(SqlState, String)>,
}

/// The columns attempts are stored in.
pub(super) fn attempts_schema() -> SchemaRef {
    let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("letter_id", false),
        Field::new("passed", DataType::Boolean, false),
        text("sqlstate", true),
        text("message", true),
        moment("tried_at"),
        Field::new("day", DataType::Date32, false),
    ]))
}

/// Attempts as rows of their table.
pub fn attempts(tried: &[Attempt], at_micros: i64) -> Result<RecordBatch> {
    let rows = tried.len();
    let ids = tried.iter().map(|t| t.letter.as_str());
    let passed: Vec<bool> = tried.iter().map(|t| t.error.is_none()).collect();
    let states = tried.iter().map(|t| t.error.as_ref().map(|(s, _)| s.0));
    let messages = tried
        .iter()
        .map(|t| t.error.as_ref().map(|(_, m)| m.as_str()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(ids)),
        Arc::new(BooleanArray::from(passed)),
        Arc::new(states.collect::<StringArray>()),
        Arc::new(messages.collect::<StringArray>()),
        Arc::new(TimestampMicrosecondArray::from(vec![at_micros; rows]).with_timezone("UTC")),
        Arc::new(Date32Array::from(vec![day(at_micros); rows])),
    ];
    Ok(RecordBatch::try_new(attempts_schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};

    fn letter(bytes: Vec<u8>) -> Letter {
        Letter {
            raw: Raw {
                bytes: bytes.into(),
                form: Form::Json,
                context: None,
                position: None,
            },
            state: SqlState::CHECK_VIOLATION,
            message: "no".to_owned(),
        }
    }

    #[test]
    fn a_long_row_is_cut_and_marked() {
        let mut letters = Letters::default();
        letters.push(letter(vec![b'x'; MAX_RAW + 1])).unwrap();
        letters.push(letter(vec![b'x'; 3])).unwrap();
        let to = Addressee {
            oid: Oid(7),
            schema: "public".to_owned(),
            name: "t".to_owned(),
            door: "http".to_owned(),
        };
        let rows = batch(&to, &letters, 1).unwrap();
        let raw = rows.column_by_name("raw").unwrap().as_binary::<i32>();
        assert_eq!(raw.value(0).len(), MAX_RAW);
        let truncated = rows.column_by_name("truncated").unwrap().as_boolean();
        assert!(truncated.value(0) && !truncated.value(1));
        assert_eq!(truncated.null_count(), 0);
    }

    #[test]
    fn their_memory_is_bounded() {
        let mut letters = Letters::default();
        let refused = (0..1_000_000)
            .find_map(|_| letters.push(letter(Vec::new())).err())
            .expect("a limit");
        assert_eq!(refused.state(), SqlState::PROGRAM_LIMIT_EXCEEDED);
    }

    #[test]
    fn forms_have_words() {
        for form in Form::READABLE {
            assert_eq!(Form::of(form.word()), Some(form));
        }
    }
}
