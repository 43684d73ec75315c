//! CSV with a header line of column names. An empty field is NULL.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use csv::{ReaderBuilder, StringRecord};

use super::columns::Cell;
use super::table::{Table, at};
use crate::error::{Error, Result, SqlState};

/// All rows below the header.
pub(crate) fn rows(text: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut table = Table::new(schema);
    let mut reader = ReaderBuilder::new().from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| malformed(&e))?.clone();
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
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| malformed(&e))? {
        let line = record.position().map_or(0, csv::Position::line);
        let mut cells = vec![Cell::Absent; table.width()];
        for (column, field) in columns.iter().zip(&record) {
            cells[*column] = match field {
                "" => Cell::Null,
                text => Cell::Text(text),
            };
        }
        table.push(usize::try_from(line).unwrap_or(0), &cells, &mut Vec::new())?;
    }
    table.finish()
}

fn malformed(e: &csv::Error) -> Error {
    let line = e.position().map_or(0, csv::Position::line);
    let what = match e.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields where the header has {expected_len}"),
        _ => "invalid CSV".to_owned(),
    };
    let line = usize::try_from(line).unwrap_or(0);
    at(line, None, SqlState::BAD_COPY_FILE_FORMAT, what)
}
