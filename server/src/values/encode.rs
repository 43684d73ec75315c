//! `COPY … TO`: record batches → bytes.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::decode::SIGNATURE;
use super::write::{ColumnWriter, WireFormat, sized};
use super::{CopyFormat, CopyOptions, Header};
use crate::error::{Error, Result, SqlState};

/// Encodes rows for a `COPY … TO`: [`Encoder::start`], then each batch, then [`Encoder::finish`].
#[derive(Debug)]
pub struct Encoder {
    options: CopyOptions,
    schema: SchemaRef,
    scratch: Vec<u8>,
}

impl Encoder {
    /// Encodes rows of `schema`.
    pub fn new(options: CopyOptions, schema: SchemaRef) -> Result<Self> {
        options.check()?;
        Ok(Self {
            options,
            schema,
            scratch: Vec::new(),
        })
    }

    /// Appends what stands before the rows.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        if self.options.format == CopyFormat::Binary {
            out.extend_from_slice(SIGNATURE);
            out.extend_from_slice(&[0; 8]); // flags, length of the header extension
        } else if self.options.header != Header::None {
            for (i, field) in self.schema.fields().iter().enumerate() {
                if i > 0 {
                    out.push(self.options.delimiter);
                }
                self.field(i, field.name().as_bytes(), out);
            }
            out.push(b'\n');
        }
    }

    /// Appends the rows of a batch.
    pub fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let columns = self.prepare(batch)?;
        for row in 0..batch.num_rows() {
            self.row(&columns, row, out)?;
        }
        Ok(())
    }

    /// Prepares a batch for [`Encoder::row`].
    pub fn prepare(&self, batch: &RecordBatch) -> Result<Vec<ColumnWriter>> {
        let format = match self.options.format {
            CopyFormat::Binary => WireFormat::Binary,
            CopyFormat::Text | CopyFormat::Csv => WireFormat::Text,
        };
        self.schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| ColumnWriter::new(field, column, format, self.options.style))
            .collect()
    }

    /// Appends one row of a prepared batch.
    pub fn row(&mut self, columns: &[ColumnWriter], row: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.options.format == CopyFormat::Binary {
            let count = i16::try_from(columns.len()).map_err(|_| {
                Error::refused(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "too many columns for COPY",
                )
            })?;
            out.extend_from_slice(&count.to_be_bytes());
            for column in columns {
                sized(column, row, out)?;
            }
            return Ok(());
        }
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                out.push(self.options.delimiter);
            }
            if column.is_null(row) {
                out.extend_from_slice(self.options.null.as_bytes());
                continue;
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            scratch.clear();
            column.write(row, &mut scratch)?;
            self.field(i, &scratch, out);
            self.scratch = scratch;
        }
        out.push(b'\n');
        Ok(())
    }

    /// Appends what stands after the rows.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.options.format == CopyFormat::Binary {
            out.extend_from_slice(&(-1i16).to_be_bytes());
        }
    }

    fn field(&self, column: usize, value: &[u8], out: &mut Vec<u8>) {
        if self.options.format == CopyFormat::Csv {
            self.csv(column, value, out);
        } else {
            self.text(value, out);
        }
    }

    fn text(&self, value: &[u8], out: &mut Vec<u8>) {
        for byte in value {
            let escaped = match byte {
                8 => b'b',
                12 => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                11 => b'v',
                b'\\' => b'\\',
                other if *other == self.options.delimiter => *other,
                other => {
                    out.push(*other);
                    continue;
                }
            };
            out.extend_from_slice(&[b'\\', escaped]);
        }
    }

    fn csv(&self, column: usize, value: &[u8], out: &mut Vec<u8>) {
        let o = &self.options;
        let quote = o.force_quote.contains(column)
            || value == o.null.as_bytes()
            // alone on a line it would be the end marker
            || (value == b"\\." && self.schema.fields().len() == 1)
            || value
                .iter()
                .any(|b| *b == o.delimiter || *b == o.quote || matches!(b, b'\n' | b'\r'));
        if !quote {
            return out.extend_from_slice(value);
        }
        out.push(o.quote);
        for byte in value {
            if *byte == o.quote || *byte == o.escape {
                out.push(o.escape);
            }
            out.push(*byte);
        }
        out.push(o.quote);
    }
}
