//! The three `COPY` formats, text, csv and binary: bytes ↔ record batches, and the PostgreSQL value
//! codecs they are made of, which the Postgres door uses too.
//!
//! Knows types, nothing of tables or sessions. Input may arrive cut at any byte; memory is bounded
//! by one batch and one row of [`CopyOptions::max_row`] bytes.

mod context;
mod decode;
mod encode;
mod pg_type;
mod read;
mod split;
mod write;

/// The calendar and the zones that dates are read and written by.
pub(crate) mod calendar {
    pub(crate) use super::read::datetime::{days_of, east_of, fixed_zone};
    pub(crate) use super::write::datetime::{DAY, civil, offset_at};
}

#[cfg(test)]
mod tests;

use chrono_tz::Tz;

use crate::error::{Error, Result, SqlState};

pub use decode::Decoder;
pub use encode::Encoder;
pub use pg_type::PgType;
pub(crate) use read::cast_exact;
pub use read::{CellReader, of_type, reader};
pub use write::{ColumnWriter, Style, WireFormat, sized};

/// Digits after the point that a numeric value on the wire needs.
pub(crate) fn natural_scale(bytes: &[u8], binary: bool) -> i8 {
    read::natural_scale(bytes, binary)
}

/// The only row of a batch as a JSON object, keyed by its columns' names.
///
/// # Errors
/// When a value has no text form.
pub(crate) fn json_object(batch: &arrow::record_batch::RecordBatch) -> Result<Vec<u8>> {
    write::json_object(batch)
}

/// UTF-8 text of a value on the wire, refused when it is not.
pub(crate) fn valid_text(bytes: &[u8]) -> Result<&str> {
    read::valid_text(bytes)
}

/// `FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Tab-separated with backslash escapes.
    Text,
    /// Comma-separated with quotes.
    Csv,
    /// PostgreSQL's binary COPY.
    Binary,
}

/// `HEADER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// No header line.
    None,
    /// Written on the way out, skipped on the way in.
    Present,
    /// As [`Header::Present`], and on the way in it must name the columns.
    Match,
}

/// For which columns a `FORCE_…` option holds, by their place in the column list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Columns {
    /// For none.
    #[default]
    None,
    /// For all (`*`).
    All,
    /// For these.
    Only(Vec<usize>),
}

impl Columns {
    fn contains(&self, column: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(some) => some.contains(&column),
        }
    }
}

/// The options of a `COPY` statement. Start from [`CopyOptions::new`], which has the defaults.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// `FORMAT`.
    pub format: CopyFormat,
    /// `DELIMITER`: tab, or comma for csv.
    pub delimiter: u8,
    /// `NULL`: `\N`, or nothing for csv.
    pub null: String,
    /// `HEADER`.
    pub header: Header,
    /// `QUOTE` (csv).
    pub quote: u8,
    /// `ESCAPE` (csv); the quote character unless given.
    pub escape: u8,
    /// `FORCE_QUOTE` (csv, out).
    pub force_quote: Columns,
    /// `FORCE_NOT_NULL` (csv, in): the null text is an ordinary value there.
    pub force_not_null: Columns,
    /// `FORCE_NULL` (csv, in): the null text means NULL there even in quotes.
    pub force_null: Columns,
    /// Zone and float style of values as text.
    pub style: Style,
    /// Largest row, in bytes.
    pub max_row: usize,
}

impl CopyOptions {
    /// The defaults of a format.
    pub fn new(format: CopyFormat) -> Self {
        let csv = format == CopyFormat::Csv;
        Self {
            format,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".to_owned() },
            header: Header::None,
            quote: b'"',
            escape: b'"',
            force_quote: Columns::None,
            force_not_null: Columns::None,
            force_null: Columns::None,
            style: Style::default(),
            max_row: 64 << 20,
        }
    }

    /// Zone that `timestamptz` text without its own zone is in.
    fn zone(&self) -> Tz {
        self.style.time_zone
    }

    /// Refuses combinations that cannot be told apart in the data.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: &str| {
            Err(Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                message.to_owned(),
            ))
        };
        if self.format == CopyFormat::Binary {
            return if self.header == Header::None {
                Ok(())
            } else {
                refuse("cannot specify HEADER in binary mode")
            };
        }
        let csv = self.format == CopyFormat::Csv;
        let line_end = |b: u8| matches!(b, b'\n' | b'\r' | 0);
        if line_end(self.delimiter) || !self.delimiter.is_ascii() {
            return refuse("COPY delimiter must be a single one-byte character");
        }
        if !csv
            && (self.delimiter.is_ascii_alphanumeric() || matches!(self.delimiter, b'\\' | b'.'))
        {
            return refuse("COPY delimiter cannot be a letter, a digit, \".\" or a backslash");
        }
        if self.null.bytes().any(line_end) {
            return refuse("COPY null representation cannot use newline or carriage return");
        }
        if self.null.bytes().any(|b| b == self.delimiter) {
            return refuse("COPY delimiter must not appear in the NULL specification");
        }
        if csv {
            if line_end(self.quote) || !self.quote.is_ascii() {
                return refuse("COPY quote must be a single one-byte character");
            }
            if line_end(self.escape) || !self.escape.is_ascii() {
                return refuse("COPY escape must be a single one-byte character");
            }
            if self.delimiter == self.quote {
                return refuse("COPY delimiter and quote must be different");
            }
            if self.null.bytes().any(|b| b == self.quote) {
                return refuse("CSV quote character must not appear in the NULL specification");
            }
        }
        Ok(())
    }
}
