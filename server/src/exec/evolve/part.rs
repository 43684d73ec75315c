//! Rows on their way into columns: a batch, with its values that have no column.

use std::collections::{BTreeMap, HashMap};

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use catalog::Relation;
use serde_json::value::RawValue;

use super::{Bad, column, no_objects, rescued};
use crate::error::{Error, Result, SqlState};
use crate::types::RESCUED;

/// Values without a column, by key; each with its row.
pub(super) type Strays = BTreeMap<String, Vec<(usize, Box<RawValue>)>>;

/// Some of the rows of a batch.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) batch: RecordBatch,
    pub(super) strays: Strays,
    /// Rows whose strays are no JSON objects.
    pub(super) broken: Bad,
    /// Which rows of the batch as it was given these are; all of them when there is nothing to say.
    pub(super) rows: Option<Vec<usize>>,
}

impl Part {
    /// All rows of a batch.
    ///
    /// # Errors
    /// When its column `_rescued` does not hold texts.
    pub(super) fn of(batch: RecordBatch) -> Result<Self> {
        let (mut strays, mut broken) = (Strays::new(), Bad::new());
        for (row, text) in rescued(&batch)?.into_iter().flatten().enumerate() {
            let Some(text) = text else { continue };
            match object(&text) {
                Ok(object) => object.into_iter().for_each(|(key, value)| {
                    strays.entry(key).or_default().push((row, value));
                }),
                Err(e) => {
                    broken.insert(row, e.report());
                }
            }
        }
        Ok(Self {
            batch,
            strays,
            broken,
            rows: None,
        })
    }

    /// Without the bad rows.
    pub(super) fn without(&self, bad: &Bad) -> Result<Self> {
        if bad.is_empty() {
            return Ok(self.clone());
        }
        let all = self.batch.num_rows();
        let keep: Vec<bool> = (0..all).map(|row| !bad.contains_key(&row)).collect();
        let rows: Vec<usize> = (0..all).filter(|row| keep[*row]).collect();
        let strays = self.strays.iter().filter_map(|(key, values)| {
            let values = values.iter().filter_map(|(row, value)| {
                let now = rows.binary_search(row).ok()?;
                Some((now, value.clone()))
            });
            let values: Vec<_> = values.collect();
            (!values.is_empty()).then(|| (key.clone(), values))
        });
        Ok(Self {
            strays: strays.collect(),
            batch: filter_record_batch(&self.batch, &BooleanArray::from(keep))?,
            broken: Bad::new(),
            rows: Some(rows),
        })
    }

    /// Only what belongs to columns that the table has.
    pub(super) fn known(&self, table: &Relation) -> Result<Self> {
        let fields = self.batch.schema_ref().fields().iter().enumerate();
        let known =
            fields.filter(|(_, f)| f.name() == RESCUED || column(table, f.name()).is_some());
        let known: Vec<usize> = known.map(|(at, _)| at).collect();
        let mut part = Self {
            batch: self.batch.project(&known)?,
            ..self.clone()
        };
        part.strays.retain(|key, _| column(table, key).is_some());
        Ok(part)
    }
}

fn object(text: &str) -> Result<HashMap<String, Box<RawValue>>> {
    let object: HashMap<String, Box<RawValue>> =
        serde_json::from_str(text).map_err(|_| no_objects())?;
    let refused = |what| Err(Error::refused(SqlState::CHARACTER_NOT_IN_REPERTOIRE, what));
    if text.contains("\\u0000") {
        return refused("a text cannot hold the character NUL");
    }
    // half of a surrogate pair is JSON, but no text
    let spells = |value: &RawValue| {
        !value.get().starts_with('"') || serde_json::from_str::<String>(value.get()).is_ok()
    };
    let escaped = text.contains("\\u");
    match escaped && !object.values().all(|value| spells(value)) {
        false => Ok(object),
        true => refused("a text cannot hold half of a surrogate pair"),
    }
}
