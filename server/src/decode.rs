//! Rows as JSON, NDJSON or CSV → batches of a table's columns, for every door that takes text.
//!
//! Owns the formats and what makes a row of them good. A bad row ends the whole text, or is left out
//! and becomes a letter: the caller says which. It knows nothing of constraints beyond NOT NULL, of
//! sessions or of wires.
//!
//! | module | owns |
//! |---|---|
//! | `json`, `csv`, `scan` | the formats |
//! | `table` | rows of cells → batches, and the rows that are left out |
//! | `columns`, `datetime`, `decimal` | cells → arrays |
//! | `exact` | which numbers a double holds as written |

pub(crate) mod columns;
mod csv;
mod datetime;
mod decimal;
mod exact;
pub(crate) mod json;
mod scan;
pub(crate) mod table;

#[cfg(test)]
mod tests;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use crate::error::Result;
use crate::stream::letters::{Letters, Piece, Raw};
pub(crate) use exact::is_exact_double;

/// The forms a text of rows comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// One JSON object per line; blank lines are skipped.
    NdJson,
    /// One JSON array of objects.
    JsonArray,
    /// CSV with a header line of column names. An empty field is NULL.
    Csv,
}

/// What becomes of a row that is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRows {
    /// The first one ends the text.
    Refuse,
    /// They are left out and become letters.
    Collect,
}

/// What a text holds.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The good rows.
    pub pieces: Vec<Piece>,
    /// The bad ones.
    pub letters: Letters,
}

/// Decodes a text of rows.
///
/// # Errors
/// 22P02, 22003, 23502, … for the first bad row when those are refused; the same for a text that cannot
/// be taken apart into rows; 54000 when too many rows are bad.
pub fn text(
    format: TextFormat,
    body: &Bytes,
    columns: &SchemaRef,
    bad: BadRows,
) -> Result<Decoded> {
    match format {
        TextFormat::NdJson => json::lines(body, columns, bad),
        TextFormat::JsonArray => json::array(body, columns, bad),
        TextFormat::Csv => csv::rows(body, columns, bad),
    }
}

/// Decodes one row again that became a letter: a JSON object, or a record of CSV under the header that
/// is its context.
///
/// # Errors
/// As [`text`].
pub fn again(raw: &Raw, header: Option<&[String]>, columns: &SchemaRef) -> Result<Decoded> {
    match header {
        None => json::one(raw, columns),
        Some(header) => csv::one(raw, header, columns),
    }
}
