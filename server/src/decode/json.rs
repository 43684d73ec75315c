//! NDJSON and JSON arrays: objects whose keys are column names.

use std::borrow::Cow;
use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::columns::{Cell, Stray};
use super::scan::plain;
use super::table::{Table, at, shortened};
use crate::error::{Error, Result, SqlState};

/// Lines looked at to find out how much memory the columns will take.
const SAMPLE_LINES: usize = 16;

/// One object per line; blank lines are skipped.
pub(crate) fn lines(text: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut table = Table::new(schema);
    let mut cells = vec![Cell::Absent; table.width()];
    let mut strays = Vec::new();
    for line in text.split('\n').take(SAMPLE_LINES) {
        if plain(line, &table, &mut cells, &mut strays).is_some() {
            table.sample(line.len() + 1, &cells);
        }
    }
    table.expect(text.len());
    for (i, line) in text.split('\n').enumerate() {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() {
            continue;
        }
        let number = i + 1;
        object(number, line, &table, &mut cells, &mut strays)?;
        table.push(number, &cells, &mut strays)?;
    }
    table.finish()
}

/// Reads one object into cells, one per column of the table, and what it has beside them into strays,
/// which [`Table::push`] wants.
///
/// # Errors
/// 22P02 for what is no object, 42703 for a key that is no column, 42701 for a key twice.
pub(crate) fn object<'de>(
    number: usize,
    text: &'de str,
    table: &Table,
    cells: &mut [Cell<'de>],
    strays: &mut Vec<Stray<'de>>,
) -> Result<()> {
    if plain(text, table, cells, strays).is_some() {
        return Ok(());
    }
    let mut row = Row {
        table,
        cells,
        strays,
        wrong: None,
        line: number,
    };
    let mut de = serde_json::Deserializer::from_str(text);
    let parsed = (&mut row).deserialize(&mut de).and_then(|()| de.end());
    parsed.map_err(|e| row.wrong.take().unwrap_or_else(|| malformed(number, &e)))
}

/// One array of objects.
pub(crate) fn array(text: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut rows = Rows {
        cells: vec![Cell::Absent; schema.fields().len()],
        strays: Vec::new(),
        table: Table::new(schema),
        text,
        line: 1,
        seen: 0,
        wrong: None,
    };
    let mut de = serde_json::Deserializer::from_str(text);
    let parsed = de.deserialize_seq(&mut rows).and_then(|()| de.end());
    match parsed {
        Ok(()) => rows.table.finish(),
        Err(e) => Err(rows.wrong.unwrap_or_else(|| malformed(e.line(), &e))),
    }
}

/// One object, read into cells.
struct Row<'t, 'de> {
    table: &'t Table,
    cells: &'t mut [Cell<'de>],
    strays: &'t mut Vec<Stray<'de>>,
    /// Where the object stands.
    line: usize,
    /// What is wrong with it, when that is more than its syntax.
    wrong: Option<Error>,
}

impl<'de> DeserializeSeed<'de> for &mut Row<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Row<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with column names as keys")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        self.cells.fill(Cell::Absent);
        self.strays.clear();
        let mut expected = 0;
        while let Some(found) = map.next_key_seed(Key {
            table: self.table,
            expected,
        })? {
            let column = match found {
                Ok(column) => column,
                Err(name) if self.table.keeps() => {
                    let value: &'de RawValue = map.next_value()?;
                    self.strays.push((Cow::Owned(name), value.get()));
                    continue;
                }
                Err(name) => {
                    self.wrong = Some(self.table.unknown(self.line, &name));
                    return Err(M::Error::custom("unknown column"));
                }
            };
            if !matches!(self.cells[column], Cell::Absent) {
                let state = SqlState::DUPLICATE_COLUMN;
                self.wrong = Some(at(self.line, None, state, "a key appears twice"));
                return Err(M::Error::custom("duplicate key"));
            }
            let value: &'de RawValue = map.next_value()?;
            self.cells[column] = match value.get() {
                "null" => Cell::Null,
                json => Cell::Json(json),
            };
            expected = column + 1;
        }
        Ok(())
    }
}

/// A key → its column, or the name that is none.
struct Key<'t> {
    table: &'t Table,
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let found = self.table.column(name, self.expected);
        Ok(found.ok_or_else(|| name.to_owned()))
    }
}

/// The rows of an array.
struct Rows<'de> {
    table: Table,
    cells: Vec<Cell<'de>>,
    strays: Vec<Stray<'de>>,
    text: &'de str,
    /// The line that `seen` bytes of the text lie before.
    line: usize,
    seen: usize,
    wrong: Option<Error>,
}

impl<'de> Visitor<'de> for &mut Rows<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        while let Some(object) = seq.next_element::<&'de RawValue>()? {
            let object = object.get();
            let line = self.line_of(object);
            let mut row = Row {
                table: &self.table,
                cells: &mut self.cells,
                strays: &mut self.strays,
                line,
                wrong: None,
            };
            let mut de = serde_json::Deserializer::from_str(object);
            if let Err(e) = (&mut row).deserialize(&mut de) {
                let wrong = row.wrong.take();
                self.wrong = Some(wrong.unwrap_or_else(|| malformed(line, &e)));
                return Err(S::Error::custom("bad row"));
            }
            if let Err(e) = self.table.push(line, &self.cells, &mut self.strays) {
                self.wrong = Some(e);
                return Err(S::Error::custom("bad row"));
            }
        }
        Ok(())
    }
}

impl<'de> Rows<'de> {
    /// The line an element starts on; elements come in order, so each newline is counted once.
    fn line_of(&mut self, element: &'de str) -> usize {
        let at = (element.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        if let Some(between) = self.text.as_bytes().get(self.seen..at) {
            self.line += between.iter().filter(|b| **b == b'\n').count();
            self.seen = at;
        }
        self.line
    }
}

fn malformed(line: usize, e: &serde_json::Error) -> Error {
    let text = e.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    let state = SqlState::INVALID_TEXT_REPRESENTATION;
    at(
        line,
        None,
        state,
        format!(
            "invalid JSON at character {}: {}",
            e.column(),
            shortened(what)
        ),
    )
}
