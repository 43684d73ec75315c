//! CSV with a header line of column names. An empty field is NULL.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use csv::{ByteRecord, ReaderBuilder};

use super::columns::Cell;
use super::table::{Place, Table, at, utf8};
use super::{BadRows, Decoded};
use crate::error::{Error, Result, SqlState};
use crate::stream::letters::{Form, Raw, Source};

/// All rows below the header.
pub(super) fn rows(body: &Bytes, schema: &SchemaRef, bad: BadRows) -> Result<Decoded> {
    let mut reader = ReaderBuilder::new()
        .flexible(true)
        .from_reader(body.as_ref());
    let header = reader.byte_headers().map_err(|e| malformed(&e))?;
    let names = header
        .iter()
        .map(|name| Ok(utf8(name, 1)?.to_owned()))
        .collect::<Result<Vec<String>>>()?;
    let context = serde_json::Value::from(names.clone()).to_string();
    let source = Source::Text {
        text: body.clone(),
        form: Form::Csv,
        context: Some(Arc::from(context)),
    };
    let mut table = Table::new(schema, source, bad);
    let columns = columns(&table, &names)?;
    let mut record = ByteRecord::new();
    loop {
        let start = offset(reader.position().byte());
        if !reader
            .read_byte_record(&mut record)
            .map_err(|e| malformed(&e))?
        {
            return table.finish();
        }
        let line = record.position().map_or(0, csv::Position::line);
        let end = offset(reader.position().byte());
        let place = trimmed(body, offset(line), start, end);
        row(&mut table, &columns, &record, place)?;
    }
}

/// One record under a header.
pub(super) fn one(raw: &Raw, header: &[String], schema: &SchemaRef) -> Result<Decoded> {
    let source = Source::Text {
        text: raw.bytes.clone(),
        form: Form::Csv,
        context: raw.context.clone(),
    };
    let mut table = Table::new(schema, source, BadRows::Refuse);
    let columns = columns(&table, header)?;
    let mut reader = ReaderBuilder::new()
        .flexible(true)
        .has_headers(false)
        .from_reader(raw.bytes.as_ref());
    let mut record = ByteRecord::new();
    if reader
        .read_byte_record(&mut record)
        .map_err(|e| malformed(&e))?
    {
        let place = trimmed(&raw.bytes, 1, 0, raw.bytes.len());
        row(&mut table, &columns, &record, place)?;
    }
    table.finish()
}

/// The columns that a header names.
fn columns(table: &Table, header: &[String]) -> Result<Vec<usize>> {
    let mut columns: Vec<usize> = Vec::with_capacity(header.len());
    for (i, name) in header.iter().enumerate() {
        let column = table
            .column(name.trim(), i)
            .ok_or_else(|| table.unknown(1, name))?;
        if columns.contains(&column) {
            let text = format!("column \"{name}\" appears twice");
            return Err(at(1, None, SqlState::DUPLICATE_COLUMN, text));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn row(table: &mut Table, columns: &[usize], record: &ByteRecord, place: Place) -> Result<()> {
    if record.len() != columns.len() {
        let text = format!(
            "{} fields where the header has {}",
            record.len(),
            columns.len()
        );
        let wrong = at(place.line, None, SqlState::BAD_COPY_FILE_FORMAT, text);
        return table.refused(place, wrong);
    }
    let mut cells = vec![Cell::Absent; table.width()];
    for (column, field) in columns.iter().zip(record) {
        cells[*column] = match utf8(field, place.line) {
            Ok("") => Cell::Null,
            Ok(text) => Cell::Text(text),
            Err(e) => return table.refused(place, e),
        };
    }
    table.push(place, &cells, &mut Vec::new())
}

/// The place of a record without the line ends around it.
fn trimmed(body: &[u8], line: usize, start: usize, end: usize) -> Place {
    let line_end = |b: &u8| matches!(b, b'\n' | b'\r');
    let bytes = body.get(start..end).unwrap_or_default();
    let before = bytes.iter().take_while(|b| line_end(b)).count();
    let after = bytes.iter().rev().take_while(|b| line_end(b)).count();
    Place {
        line,
        start: start + before,
        end: (end - after).max(start + before),
    }
}

fn offset(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn malformed(e: &csv::Error) -> Error {
    let line = e.position().map_or(0, csv::Position::line);
    let state = SqlState::BAD_COPY_FILE_FORMAT;
    at(offset(line), None, state, "invalid CSV")
}
