//! Rows as JSON, NDJSON or CSV → batches of a table's columns, for every door that takes text.
//!
//! Owns the formats and what makes a row of them good. A bad row ends the whole text, or is left out
//! and becomes a letter: the caller says which. It knows nothing of constraints beyond NOT NULL, of
//! sessions or of wires.
//!
//! | module | owns |
//! |---|---|
//! | `json`, `csv`, `scan` | the formats |
//! | `event` | events of Segment's API → rows as JSON objects |
//! | `table` | rows of cells → batches, and the rows that are left out |
//! | `columns`, `datetime`, `decimal` | cells → arrays |
//! | `exact` | which numbers a double holds as written |

pub(crate) mod columns;
mod csv;
mod datetime;
mod decimal;
pub(crate) mod event;
mod exact;
pub(crate) mod json;
mod scan;
pub(crate) mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::stream::letters::{Form, Letters, Piece, Raw, Source};
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

/// Decodes lines of JSON objects that are not rows as they came: the line `n` was made of the `n`th of
/// these, counted from 1, which becomes the letter when it is bad.
///
/// # Errors
/// As [`text`].
pub fn made(lines: &Bytes, of: Arc<[Raw]>, columns: &SchemaRef, bad: BadRows) -> Result<Decoded> {
    json::lines_of(lines, Source::Made(of), columns, bad)
}

/// Decodes an event of Segment's API again that became a letter.
///
/// # Errors
/// As [`text`], and what makes an event no row.
pub fn event_again(raw: &Raw, event_time: Option<&str>, columns: &SchemaRef) -> Result<Decoded> {
    let event = serde_json::from_slice(&raw.bytes)
        .map_err(|_| Error::Internal("an event's dead letter is no JSON".to_owned()))?;
    let common = event::Common::of_context(raw.context.as_deref().unwrap_or_default())?;
    let row = event::Layout::new(columns, event_time).row(event, &common)?;
    let row = Raw {
        bytes: row.into(),
        form: Form::Json,
        context: None,
        position: None,
    };
    json::one(&row, columns)
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
