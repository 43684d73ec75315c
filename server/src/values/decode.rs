//! `COPY … FROM`: bytes → record batches.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::read::{CellReader, reader, valid_text};
use super::split::{Fields, Splitter, unterminated};
use super::{CopyFormat, CopyOptions, Header};
use crate::error::{Error, Result, SqlState};
use crate::stream::letters::{Form, Letters, MAX_RAW, Piece, Raw, Raws, Source, Span};

/// Rows of a full batch.
const BATCH_ROWS: usize = 8_192;
/// Bytes of input after which a batch is given even when it has fewer rows.
const BATCH_BYTES: usize = 4 << 20;
/// What binary data begins with.
pub(super) const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Decodes data of a `COPY … FROM`, fed in pieces cut anywhere. After an error it is of no more use.
pub struct Decoder {
    options: CopyOptions,
    schema: SchemaRef,
    readers: Vec<Box<dyn CellReader>>,
    /// Bytes not decoded yet: less than one record after each call.
    pending: Vec<u8>,
    splitter: Splitter,
    fields: Fields,
    state: State,
    /// Lines end in CR LF; decided by the first one.
    crlf: Option<bool>,
    /// The record being read, for messages; lines for text and csv, rows for binary.
    line: u64,
    rows: usize,
    bytes: usize,
    /// Rows of batches given before.
    given: u64,
    keep: Option<Keep>,
}

/// Bad rows are left out; this is known of the rows since the last batch.
#[derive(Debug)]
struct Keep {
    form: Form,
    context: Arc<str>,
    /// The rows as they came.
    text: Vec<u8>,
    spans: Vec<Span>,
    /// Which rows are to be left out.
    bad: Vec<usize>,
    letters: Letters,
}

impl Keep {
    fn row(&mut self, line: u64, row: &[u8]) {
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let start = short(self.text.len());
        self.text.extend_from_slice(row);
        self.spans.push(Span {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            start,
            end: short(self.text.len()),
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the binary header or the header line.
    Start,
    Records,
    /// After the end marker: what follows is ignored (text) or refused (binary).
    End,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("state", &self.state)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// Decodes into `schema`: the columns of the statement's column list, in its order.
    pub fn new(options: CopyOptions, schema: SchemaRef) -> Result<Self> {
        options.check()?;
        let readers = schema
            .fields()
            .iter()
            .map(|field| reader(field, options.zone()))
            .collect::<Result<_>>()?;
        let state = if options.format == CopyFormat::Binary || options.header != Header::None {
            State::Start
        } else {
            State::Records
        };
        Ok(Self {
            options,
            schema,
            readers,
            pending: Vec::new(),
            splitter: Splitter::default(),
            fields: Fields::default(),
            state,
            crlf: None,
            line: 0,
            rows: 0,
            bytes: 0,
            given: 0,
            keep: None,
        })
    }

    /// Leaves bad rows out and keeps them as letters. What cannot be taken apart into rows is an error
    /// still.
    pub fn collecting(mut self) -> Self {
        let columns = self.schema.fields().iter().map(|f| f.name().as_str());
        self.keep = Some(Keep {
            form: self.options.form(),
            context: Arc::from(self.options.context(columns)),
            text: Vec::new(),
            spans: Vec::new(),
            bad: Vec::new(),
            letters: Letters::default(),
        });
        self
    }

    /// The rows left out since the last call.
    pub fn take_letters(&mut self) -> Letters {
        let keep = self.keep.as_mut();
        keep.map(|k| std::mem::take(&mut k.letters))
            .unwrap_or_default()
    }

    /// The next bytes; gives the batches that became full.
    pub fn feed(&mut self, data: &[u8]) -> Result<Vec<Piece>> {
        let mut batches = Vec::new();
        // taken out so that records can be borrowed from it while the readers are filled
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(data);
        let mut at = 0;
        while let Some(length) = self.step(&pending[at..])? {
            at += length;
            self.bytes += length;
            if self.rows >= BATCH_ROWS || (self.rows > 0 && self.bytes >= BATCH_BYTES) {
                batches.push(self.batch()?);
            }
        }
        pending.drain(..at);
        if pending.len() > self.options.max_row {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "a row of COPY data is longer than {} bytes",
                    self.options.max_row
                ),
            )
            .with_detail(self.place(None)));
        }
        self.pending = pending;
        Ok(batches)
    }

    /// The data is complete: gives the rows that are left.
    pub fn finish(&mut self) -> Result<Option<Piece>> {
        let rest = std::mem::take(&mut self.pending);
        match self.options.format {
            CopyFormat::Binary if self.state == State::Start || !rest.is_empty() => {
                return Err(Error::refused(
                    SqlState::BAD_COPY_FILE_FORMAT,
                    "unexpected end of COPY data",
                )
                .with_detail(self.place(None)));
            }
            CopyFormat::Binary => {} // the end marker may be missing: CopyDone says it, too
            CopyFormat::Text | CopyFormat::Csv => {
                if self.splitter.in_quotes() {
                    self.line += 1;
                    return Err(unterminated().with_detail(self.place(None)));
                }
                // the last line needs no line end
                if !rest.is_empty() && self.state != State::End {
                    self.record(&rest)?;
                }
            }
        }
        if self.rows == 0 {
            return Ok(None);
        }
        self.batch().map(Some)
    }

    /// Decodes one record at the start of `data`; `None` when it is not complete.
    fn step(&mut self, data: &[u8]) -> Result<Option<usize>> {
        if self.options.format == CopyFormat::Binary {
            return self.binary(data);
        }
        if self.state == State::End {
            return Ok((!data.is_empty()).then_some(data.len()));
        }
        let Some(length) = self.splitter.next(data, &self.options) else {
            return Ok(None);
        };
        self.record(&data[..length - 1])?;
        Ok(Some(length))
    }

    /// One line of text or csv, without its line feed.
    fn record(&mut self, record: &[u8]) -> Result<()> {
        self.line += 1;
        let crlf = *self.crlf.get_or_insert(record.ends_with(b"\r"));
        let record = if crlf {
            record.strip_suffix(b"\r").unwrap_or(record)
        } else {
            record
        };
        if record == b"\\." {
            self.state = State::End;
            return Ok(());
        }
        if self.state == State::Start {
            self.split(record)?;
            self.state = State::Records;
            return self.check_header();
        }
        if self.readers.is_empty() && record.is_empty() {
            self.rows += 1;
            return Ok(());
        }
        let mut filled = 0;
        let read = self.cells(record, &mut filled);
        self.row(record, filled, read)
    }

    fn split(&mut self, record: &[u8]) -> Result<()> {
        let split = match self.options.format {
            CopyFormat::Csv => self.fields.split_csv(record, &self.options),
            CopyFormat::Text | CopyFormat::Binary => self.fields.split_text(record, &self.options),
        };
        split.map_err(|e| e.with_detail(self.place(None)))
    }

    /// Reads the fields of a line; `filled` counts the columns that have got their cell.
    fn cells(&mut self, record: &[u8], filled: &mut usize) -> Result<()> {
        self.split(record)?;
        let columns = self.readers.len();
        if self.fields.len() < columns {
            let name = self.schema.field(self.fields.len()).name();
            return Err(Error::refused(
                SqlState::BAD_COPY_FILE_FORMAT,
                format!("missing data for column \"{name}\""),
            )
            .with_detail(self.place(None)));
        }
        if self.fields.len() > columns {
            return Err(Error::refused(
                SqlState::BAD_COPY_FILE_FORMAT,
                "extra data after last expected column",
            )
            .with_detail(self.place(None)));
        }
        for i in 0..columns {
            let read = match self.fields.get(i) {
                None => {
                    self.readers[i].null();
                    Ok(())
                }
                Some(bytes) => valid_text(bytes).and_then(|text| self.readers[i].text(text)),
            };
            read.map_err(|e| e.with_detail(self.place(Some(i))))?;
            *filled += 1;
        }
        Ok(())
    }

    /// Ends a row of which so many columns have got their cell.
    fn row(&mut self, row: &[u8], filled: usize, read: Result<()>) -> Result<()> {
        let Some(keep) = &mut self.keep else {
            read?;
            self.rows += 1;
            return Ok(());
        };
        match read {
            Ok(()) => keep.row(self.line, row),
            Err(e) => {
                keep.row(self.line, &[]);
                keep.bad.push(self.rows);
                let raw = Raw {
                    bytes: Bytes::copy_from_slice(&row[..row.len().min(MAX_RAW + 1)]),
                    form: keep.form,
                    context: Some(Arc::clone(&keep.context)),
                    position: Some(format!("line {}", self.line)),
                };
                keep.letters.add(raw, &e)?;
                // a cell that is refused was not appended
                self.readers.iter_mut().skip(filled).for_each(|r| r.null());
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn check_header(&self) -> Result<()> {
        if self.options.header != Header::Match {
            return Ok(());
        }
        let same = self.fields.len() == self.schema.fields().len()
            && self
                .schema
                .fields()
                .iter()
                .enumerate()
                .all(|(i, f)| self.fields.get(i) == Some(f.name().as_bytes()));
        if same {
            return Ok(());
        }
        let expected: Vec<_> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        Err(Error::refused(
            SqlState::BAD_COPY_FILE_FORMAT,
            "column names in the header line do not match the table's",
        )
        .with_detail(format!("line 1; expected: {}", expected.join(", "))))
    }

    /// The header or one tuple of the binary format.
    fn binary(&mut self, data: &[u8]) -> Result<Option<usize>> {
        match self.state {
            State::Start => {
                let Some(length) = binary_header(data)? else {
                    return Ok(None);
                };
                self.state = State::Records;
                Ok(Some(length))
            }
            State::End if data.is_empty() => Ok(None),
            State::End => Err(Error::refused(
                SqlState::BAD_COPY_FILE_FORMAT,
                "received copy data after EOF marker",
            )),
            State::Records => {
                let Some(length) = tuple_length(data).map_err(|e| {
                    self.line += 1;
                    e.with_detail(self.place(None))
                })?
                else {
                    return Ok(None);
                };
                if length == 2 && data.starts_with(&[0xff, 0xff]) {
                    self.state = State::End;
                } else {
                    self.tuple(&data[..length])?;
                }
                Ok(Some(length))
            }
        }
    }

    /// A complete tuple: its lengths were checked by [`tuple_length`].
    fn tuple(&mut self, tuple: &[u8]) -> Result<()> {
        self.line += 1;
        let mut filled = 0;
        let read = self.values(tuple, &mut filled);
        self.row(tuple, filled, read)
    }

    /// Reads the fields of a tuple; `filled` counts the columns that have got their cell.
    fn values(&mut self, tuple: &[u8], filled: &mut usize) -> Result<()> {
        let cut_off = || Error::refused(SqlState::BAD_COPY_FILE_FORMAT, "a tuple is cut off");
        let (count, mut rest) = tuple.split_first_chunk::<2>().ok_or_else(cut_off)?;
        let count = usize::from(u16::from_be_bytes(*count));
        if count != self.readers.len() {
            return Err(Error::refused(
                SqlState::BAD_COPY_FILE_FORMAT,
                format!(
                    "row field count is {count}, expected {}",
                    self.readers.len()
                ),
            )
            .with_detail(self.place(None)));
        }
        for i in 0..count {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
            let read = match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    let (value, tail) = tail.split_at_checked(length).unwrap_or((tail, &[]));
                    rest = tail;
                    self.readers[i].binary(value)
                }
                Err(_) => {
                    rest = tail;
                    self.readers[i].null();
                    Ok(())
                }
            };
            read.map_err(|e| e.with_detail(self.place(Some(i))))?;
            *filled += 1;
        }
        Ok(())
    }

    fn batch(&mut self) -> Result<Piece> {
        let columns = self
            .readers
            .iter_mut()
            .map(|reader| reader.finish())
            .collect::<Result<Vec<_>>>()?;
        let rows = std::mem::take(&mut self.rows);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        self.bytes = 0;
        let first = self.given + 1;
        self.given += rows as u64;
        // NOT NULL is the table's business: it has its own error
        let fields: Vec<_> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect();
        let schema =
            arrow::datatypes::Schema::new_with_metadata(fields, self.schema.metadata().clone());
        let batch = RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?;
        let Some(keep) = &mut self.keep else {
            return Ok(Piece::arrow(batch, first));
        };
        let mut spans = std::mem::take(&mut keep.spans);
        let bad = std::mem::take(&mut keep.bad);
        let batch = match bad.is_empty() {
            true => batch,
            false => {
                let mut good = vec![true; rows];
                bad.into_iter().for_each(|row| good[row] = false);
                let mut each = good.iter();
                spans.retain(|_| each.next().copied().unwrap_or(true));
                filter_record_batch(&batch, &BooleanArray::from(good))?
            }
        };
        let source = Source::Text {
            text: std::mem::take(&mut keep.text).into(),
            form: keep.form,
            context: Some(Arc::clone(&keep.context)),
        };
        let raws = Raws::Cut { source, spans };
        Ok(Piece { batch, raws })
    }

    /// Where in the data an error lies.
    fn place(&self, column: Option<usize>) -> String {
        let unit = if self.options.format == CopyFormat::Binary {
            "row"
        } else {
            "line"
        };
        match column {
            Some(i) => format!(
                "{unit} {}, column \"{}\"",
                self.line,
                self.schema.field(i).name()
            ),
            None => format!("{unit} {}", self.line),
        }
    }
}

fn binary_header(data: &[u8]) -> Result<Option<usize>> {
    let refuse = |message: &str| {
        Err(Error::refused(
            SqlState::BAD_COPY_FILE_FORMAT,
            message.to_owned(),
        ))
    };
    let common = data.len().min(SIGNATURE.len());
    if data[..common] != SIGNATURE[..common] {
        return refuse("COPY file signature not recognized");
    }
    let word = |at: usize| {
        let bytes = data.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let (Some(flags), Some(extension)) = (word(11), word(15)) else {
        return Ok(None);
    };
    if flags & 0xffff_0000 != 0 {
        return refuse("unrecognized critical flags in COPY file header");
    }
    if extension > 1 << 20 {
        return refuse("invalid COPY file header (wrong length)");
    }
    let length = 19 + usize::try_from(extension).unwrap_or(usize::MAX);
    Ok((data.len() >= length).then_some(length))
}

/// Length of the tuple (or end marker) at the start of `data`, once it is complete.
fn tuple_length(data: &[u8]) -> Result<Option<usize>> {
    let refuse = |message: &str| {
        Err(Error::refused(
            SqlState::BAD_COPY_FILE_FORMAT,
            message.to_owned(),
        ))
    };
    let Some(count) = data.first_chunk::<2>() else {
        return Ok(None);
    };
    let count = i16::from_be_bytes(*count);
    if count == -1 {
        return Ok(Some(2));
    }
    if count < 0 {
        return refuse("unexpected field count in COPY data");
    }
    let mut at = 2;
    for _ in 0..count {
        let Some(length) = data.get(at..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        if length < -1 {
            return refuse("invalid field size in COPY data");
        }
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    Ok((data.len() >= at).then_some(at))
}
