//! Rows of cells → batches of a table's columns. The text formats meet here.

use std::collections::{HashMap, HashSet};

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;

use super::columns::{Builders, Cell, Stray};
use super::{BadRows, Decoded};
use crate::error::{Error, Result, SqlState};
use crate::stream::letters::{Letters, Piece, Raws, Source, Span};
use crate::types::{DEFAULT_KEY, Evolution};

/// Rows of one batch.
const BATCH_ROWS: usize = 65_536;
/// Sampled lines that say enough to set memory aside.
const SAMPLE_ENOUGH: usize = 8;
/// Characters of a bad value that an error repeats.
const SHOWN: usize = 60;

/// What is wrong with one cell.
#[derive(Debug)]
pub(super) struct BadCell {
    /// Its code.
    pub(super) state: SqlState,
    /// What is wrong, without the place.
    pub(super) message: String,
}

/// Where a row stands in its source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Its line, from 1, for errors.
    pub(crate) line: usize,
    /// Its first byte.
    pub(crate) start: usize,
    /// The byte after its last one.
    pub(crate) end: usize,
}

impl Place {
    fn span(self) -> Span {
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            line: short(self.line),
            start: short(self.start),
            end: short(self.end),
        }
    }
}

/// Collects the rows of one request.
///
/// A column that has a default and is left out by a row must not become NULL there, so rows are
/// grouped by which such columns they leave out; a group's batches lack exactly these.
pub(crate) struct Table {
    schema: SchemaRef,
    index: HashMap<String, usize>,
    defaulted: Vec<usize>,
    groups: Vec<Group>,
    source: Source,
    bad: BadRows,
    letters: Letters,
    /// Lines looked at beforehand: their number, their bytes, the bytes of each column's values.
    sampled: (usize, usize, Vec<usize>),
    sizes: Sizes,
    /// Keys that are no columns are kept.
    keeps: bool,
}

/// What a first batch is expected to hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes {
    /// Rows.
    pub(super) rows: usize,
    /// Bytes of each column's texts.
    pub(super) bytes: Vec<usize>,
}

struct Group {
    /// Columns that its rows leave out.
    without: Vec<usize>,
    builders: Builders,
    /// Where the builders' rows stand.
    spans: Vec<Span>,
    pieces: Vec<Piece>,
}

impl Table {
    /// For rows of these columns, read from `source`.
    pub(crate) fn new(schema: &SchemaRef, source: Source, bad: BadRows) -> Self {
        let names = schema.fields().iter().enumerate();
        let defaulted = names
            .clone()
            .filter(|(_, f)| f.metadata().contains_key(DEFAULT_KEY))
            .map(|(i, _)| i)
            .collect();
        Self {
            schema: SchemaRef::clone(schema),
            index: names.map(|(i, f)| (f.name().clone(), i)).collect(),
            defaulted,
            groups: Vec::new(),
            source,
            bad,
            letters: Letters::default(),
            sampled: (0, 0, vec![0; schema.fields().len()]),
            sizes: Sizes::default(),
            keeps: Evolution::of(schema).is_some(),
        }
    }

    /// True when keys that are no columns are kept, and no error.
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Takes a row into account for [`Self::expect`].
    pub(crate) fn sample(&mut self, line_bytes: usize, cells: &[Cell<'_>]) {
        self.sampled.0 += 1;
        self.sampled.1 += line_bytes;
        for (bytes, cell) in self.sampled.2.iter_mut().zip(cells) {
            *bytes += cell.bytes();
        }
    }

    /// Makes room for the rows of so many bytes, judged by those sampled: growing columns step by
    /// step would touch their memory twice. No more is ever set aside than the text is long.
    pub(crate) fn expect(&mut self, text_bytes: usize) {
        let (lines, line_bytes, columns) = &self.sampled;
        if *lines < SAMPLE_ENOUGH {
            return;
        }
        let rows = (text_bytes * lines / line_bytes + 1).min(BATCH_ROWS);
        // a few more, since lines differ
        let rows = rows + rows / 16;
        self.sizes = Sizes {
            rows,
            bytes: columns.iter().map(|bytes| bytes * rows / lines).collect(),
        };
    }

    /// The name of a column.
    pub(super) fn name(&self, column: usize) -> Option<&str> {
        self.schema.fields().get(column).map(|f| f.name().as_str())
    }

    /// How many columns there are.
    pub(crate) fn width(&self) -> usize {
        self.schema.fields().len()
    }

    /// The column of that name. `expected` is tried first: rows tend to keep their order.
    pub(super) fn column(&self, name: &str, expected: usize) -> Option<usize> {
        match self.schema.fields().get(expected) {
            Some(field) if field.name() == name => Some(expected),
            _ => self.index.get(name).copied(),
        }
    }

    /// The refusal of a name that is no column.
    pub(crate) fn unknown(&self, line: usize, name: &str) -> Error {
        let names: Vec<&str> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        let name = shortened(name);
        at(
            line,
            None,
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{name}\" does not exist"),
        )
        .with_hint(format!("the columns are {}", shortened(&names.join(", "))))
    }

    /// Adds a row: one cell per column, and what it has beside them, which is taken out.
    ///
    /// # Errors
    /// What is wrong with it, when bad rows are refused.
    pub(crate) fn push<'a>(
        &mut self,
        place: Place,
        cells: &[Cell<'a>],
        strays: &mut Vec<Stray<'a>>,
    ) -> Result<()> {
        if let Err(e) = check_strays(place.line, strays) {
            strays.clear();
            return self.refused(place, e);
        }
        let index = self.group(cells);
        let group = &mut self.groups[index];
        group.spans.push(place.span());
        let pushed = group.builders.push(place.line, cells, strays);
        strays.clear();
        if let Err((column, bad)) = pushed {
            let name = self.schema.field(column).name();
            let error = at(place.line, Some(name), bad.state, bad.message);
            self.refused(place, error)?;
        }
        if self.groups[index].builders.rows() >= BATCH_ROWS {
            self.flush(index)?;
        }
        Ok(())
    }

    /// Leaves a row out.
    ///
    /// # Errors
    /// `error`, when bad rows are refused.
    pub(super) fn refused(&mut self, place: Place, error: Error) -> Result<()> {
        match self.bad {
            BadRows::Refuse => Err(error),
            BadRows::Collect => self.letters.add(self.source.raw(place.span()), &error),
        }
    }

    /// All rows.
    pub(crate) fn finish(mut self) -> Result<Decoded> {
        let mut pieces = Vec::new();
        for index in 0..self.groups.len() {
            self.flush(index)?;
            pieces.append(&mut self.groups[index].pieces);
        }
        Ok(Decoded {
            pieces,
            letters: self.letters,
        })
    }

    /// Makes a batch of a group's rows, without those that turned out to be bad.
    fn flush(&mut self, index: usize) -> Result<()> {
        let group = &mut self.groups[index];
        let rows = group.builders.rows();
        if rows == 0 {
            return Ok(());
        }
        let (batch, left_out, late) = group.builders.finish()?;
        let mut spans = std::mem::take(&mut group.spans);
        for (row, error) in late {
            let span = spans.get(row).copied();
            match (self.bad, span) {
                (BadRows::Collect, Some(span)) => {
                    self.letters.add(self.source.raw(span), &error)?;
                }
                _ => return Err(error),
            }
        }
        let batch = match left_out.is_empty() {
            true => batch,
            false => {
                let mut keep = vec![true; rows];
                for row in left_out {
                    keep[row] = false;
                }
                let mut kept = keep.iter();
                spans.retain(|_| kept.next().copied().unwrap_or(true));
                filter_record_batch(&batch, &BooleanArray::from(keep))?
            }
        };
        if batch.num_rows() > 0 {
            let raws = Raws::Cut {
                source: self.source.clone(),
                spans,
            };
            self.groups[index].pieces.push(Piece { batch, raws });
        }
        Ok(())
    }

    /// The group of a row; rows of one shape, which is the usual case, find it at once.
    fn group(&mut self, cells: &[Cell<'_>]) -> usize {
        let left_out = |i: &&usize| matches!(cells[**i], Cell::Absent);
        let found = self
            .groups
            .iter()
            .position(|g| g.without.iter().eq(self.defaulted.iter().filter(left_out)));
        found.unwrap_or_else(|| {
            let without: Vec<usize> = self.defaulted.iter().filter(left_out).copied().collect();
            self.groups.push(Group {
                builders: Builders::new(&self.schema, &without, &std::mem::take(&mut self.sizes)),
                without,
                spans: Vec::new(),
                pieces: Vec::new(),
            });
            self.groups.len() - 1
        })
    }
}

/// Refuses a key twice in a row, and the one character that no text can hold.
fn check_strays(line: usize, strays: &[Stray<'_>]) -> Result<()> {
    if strays.is_empty() {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(strays.len());
    for (key, json) in strays {
        if !seen.insert(key.as_ref()) {
            let state = SqlState::DUPLICATE_COLUMN;
            return Err(at(line, None, state, "a key appears twice"));
        }
        if key.contains('\0') || json.contains("\\u0000") {
            let state = SqlState::CHARACTER_NOT_IN_REPERTOIRE;
            let message = "a text cannot hold the character NUL";
            return Err(at(line, Some(&shortened(key)), state, message));
        }
    }
    Ok(())
}

/// A refusal that names its place: `line 3, column "amount": …`.
pub(super) fn at(
    line: usize,
    column: Option<&str>,
    state: SqlState,
    message: impl std::fmt::Display,
) -> Error {
    let place = match column {
        Some(column) => format!("line {line}, column \"{column}\""),
        None => format!("line {line}"),
    };
    Error::refused(state, format!("{place}: {message}"))
}

/// A value short enough for an error text.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What bytes spell.
pub(super) fn utf8(bytes: &[u8], line: usize) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| {
        let good = &bytes[..e.valid_up_to()];
        let line = line + good.iter().filter(|b| **b == b'\n').count();
        at(
            line,
            None,
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "the text is not UTF-8",
        )
    })
}
