//! NDJSON and JSON arrays: objects whose keys are column names.

use std::borrow::Cow;
use std::fmt;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::columns::{Cell, Stray};
use super::scan::plain;
use super::table::{Place, Table, at, shortened, utf8};
use super::{BadRows, Decoded};
use crate::error::{Error, Result, SqlState};
use crate::stream::letters::{Form, Raw, Source};

/// Lines looked at to find out how much memory the columns will take.
const SAMPLE_LINES: usize = 16;

/// One object per line; blank lines are skipped.
pub(super) fn lines(body: &Bytes, schema: &SchemaRef, bad: BadRows) -> Result<Decoded> {
    lines_of(body, text_source(body), schema, bad)
}

/// The same, where letters come from another source.
pub(super) fn lines_of(
    body: &Bytes,
    source: Source,
    schema: &SchemaRef,
    bad: BadRows,
) -> Result<Decoded> {
    let mut table = Table::new(schema, source, bad);
    let text = match (utf8(body, 1), bad) {
        (Ok(text), _) => text,
        (Err(_), BadRows::Collect) => return broken_lines(body, table),
        (Err(e), BadRows::Refuse) => return Err(e),
    };
    let mut cells = vec![Cell::Absent; table.width()];
    let mut strays = Vec::new();
    for line in text.split('\n').take(SAMPLE_LINES) {
        if plain(line, &table, &mut cells, &mut strays).is_some() {
            table.sample(line.len() + 1, &cells);
        }
    }
    table.expect(text.len());
    let mut start = 0;
    for (i, line) in text.split('\n').enumerate() {
        let next = start + line.len() + 1;
        object(
            &mut table,
            &mut cells,
            &mut strays,
            line,
            place(i + 1, start, line),
        )?;
        start = next;
    }
    table.finish()
}

/// Lines of which some are no text.
fn broken_lines(body: &Bytes, mut table: Table) -> Result<Decoded> {
    let mut cells = vec![Cell::Absent; table.width()];
    let mut strays = Vec::new();
    let mut start = 0;
    for (i, bytes) in body.split(|b| *b == b'\n').enumerate() {
        let number = i + 1;
        match utf8(bytes, number) {
            Ok(line) => {
                let place = place(number, start, line);
                object(&mut table, &mut cells, &mut strays, line, place)?;
            }
            Err(e) => {
                let end = start + bytes.len();
                table.refused(
                    Place {
                        line: number,
                        start,
                        end,
                    },
                    e,
                )?;
            }
        }
        start += bytes.len() + 1;
    }
    table.finish()
}

/// One object, wherever its lines end.
pub(super) fn one(raw: &Raw, schema: &SchemaRef) -> Result<Decoded> {
    let mut table = Table::new(schema, text_source(&raw.bytes), BadRows::Refuse);
    let mut cells = vec![Cell::Absent; table.width()];
    let text = utf8(&raw.bytes, 1)?;
    let mut strays = Vec::new();
    read(&table, &mut cells, &mut strays, text, 1)?;
    if let Some(context) = &raw.context {
        let mut beside = vec![Cell::Absent; table.width()];
        read(&table, &mut beside, &mut Vec::new(), context, 1)?;
        let given = beside.into_iter().zip(&mut cells);
        for (value, cell) in given.filter(|(v, _)| !matches!(v, Cell::Absent)) {
            *cell = value;
        }
    }
    table.push(place(1, 0, text), &cells, &mut strays)?;
    table.finish()
}

fn text_source(body: &Bytes) -> Source {
    Source::Text {
        text: body.clone(),
        form: Form::Json,
        context: None,
    }
}

/// The place of a line without its line end.
fn place(line: usize, start: usize, text: &str) -> Place {
    let text = text.trim_end_matches('\r');
    Place {
        line,
        start,
        end: start + text.len(),
    }
}

/// Reads one object into a row of the table; blank text holds none.
fn object<'de>(
    table: &mut Table,
    cells: &mut [Cell<'de>],
    strays: &mut Vec<Stray<'de>>,
    line: &'de str,
    place: Place,
) -> Result<()> {
    let line = line.trim_end_matches('\r');
    if line.trim().is_empty() {
        return Ok(());
    }
    match read(table, cells, strays, line, place.line) {
        Ok(()) => table.push(place, cells, strays),
        Err(e) => table.refused(place, e),
    }
}

/// Reads one object into cells, one per column of the table, and what it has beside them into strays,
/// which [`Table::push`] wants.
///
/// # Errors
/// 22P02 for what is no object, 42703 for a key that is no column, 42701 for a key twice.
pub(crate) fn read<'de>(
    table: &Table,
    cells: &mut [Cell<'de>],
    strays: &mut Vec<Stray<'de>>,
    text: &'de str,
    line: usize,
) -> Result<()> {
    if plain(text, table, cells, strays).is_some() {
        return Ok(());
    }
    let mut row = Row {
        table,
        cells,
        strays,
        wrong: None,
        line,
    };
    let mut de = serde_json::Deserializer::from_str(text);
    let parsed = (&mut row).deserialize(&mut de).and_then(|()| de.end());
    parsed.map_err(|e| row.wrong.take().unwrap_or_else(|| malformed(line, &e)))
}

/// One array of objects. Bad ones can be left out; what is no array of JSON values cannot be taken apart.
pub(super) fn array(body: &Bytes, schema: &SchemaRef, bad: BadRows) -> Result<Decoded> {
    let text = utf8(body, 1)?;
    let mut rows = Rows {
        cells: vec![Cell::Absent; schema.fields().len()],
        strays: Vec::new(),
        table: Table::new(schema, text_source(body), bad),
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
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            let element = element.get();
            let place = self.place_of(element);
            if let Err(e) = self.row(element, place) {
                self.wrong = Some(e);
                return Err(S::Error::custom("bad row"));
            }
        }
        Ok(())
    }
}

impl<'de> Rows<'de> {
    fn row(&mut self, element: &'de str, place: Place) -> Result<()> {
        let mut row = Row {
            table: &self.table,
            cells: &mut self.cells,
            strays: &mut self.strays,
            line: place.line,
            wrong: None,
        };
        let mut de = serde_json::Deserializer::from_str(element);
        match (&mut row).deserialize(&mut de) {
            Ok(()) => self.table.push(place, &self.cells, &mut self.strays),
            Err(e) => {
                let wrong = row.wrong.take();
                let wrong = wrong.unwrap_or_else(|| malformed(place.line, &e));
                self.table.refused(place, wrong)
            }
        }
    }

    /// Where an element stands; elements come in order, so each newline is counted once.
    fn place_of(&mut self, element: &'de str) -> Place {
        let at = (element.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        if let Some(between) = self.text.as_bytes().get(self.seen..at) {
            self.line += between.iter().filter(|b| **b == b'\n').count();
            self.seen = at;
        }
        Place {
            line: self.line,
            start: at,
            end: at + element.len(),
        }
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
