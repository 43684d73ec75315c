//! Keys of rows as hashes, whole columns at a time.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use rand::Rng;
use siphasher::sip128::SipHasher13;

use crate::error::{Error, Result};

/// 128 bits that stand for a key.
pub(super) type Hash = (u64, u64);

/// Hashes with a key of its own.
#[derive(Debug, Clone)]
pub(super) struct Hasher(SipHasher13);

/// What is asked about the rows of one batch.
#[derive(Debug)]
pub(super) struct Keys {
    /// The hash of each row's key; of no meaning where there is no key.
    pub(super) hashes: Vec<Hash>,
    /// The event times in microseconds, where the table has them.
    pub(super) times: Option<Vec<i64>>,
    /// Rows that have a key and a time; all when `None`.
    pub(super) whole: Option<NullBuffer>,
}

impl Keys {
    /// The row's time, or `now`; `None` when the row can be no duplicate.
    pub(super) fn time(&self, row: usize, now: Option<i64>) -> Option<i64> {
        if self.whole.as_ref().is_some_and(|whole| whole.is_null(row)) {
            return None;
        }
        match &self.times {
            Some(times) => times.get(row).copied(),
            None => now,
        }
    }
}

impl Hasher {
    /// With a random key.
    pub(super) fn new() -> Self {
        Self(SipHasher13::new_with_key(&rand::rng().random()))
    }

    /// Hashes the `key` columns of a batch and takes its event times.
    pub(super) fn keys(
        &self,
        batch: &RecordBatch,
        key: &[String],
        event_time: Option<&str>,
    ) -> Result<Keys> {
        let columns = key
            .iter()
            .map(|name| Column::of(column(batch, name)?))
            .collect::<Result<Vec<_>>>()?;
        let mut whole = None;
        for name in key.iter().map(String::as_str).chain(event_time) {
            let column = column(batch, name)?;
            whole = NullBuffer::union(whole.as_ref(), column.nulls());
        }
        let whole = whole.filter(|nulls| nulls.null_count() > 0);
        let times = match event_time {
            Some(name) => Some(times(column(batch, name)?)?),
            None => None,
        };
        let rows = 0..batch.num_rows();
        let hashes = match columns.as_slice() {
            [only] => rows.map(|row| only.with(row, |b| self.hash(b))).collect(),
            several => {
                let mut key = Vec::new();
                rows.map(|row| {
                    key.clear();
                    for column in several {
                        column.with(row, |bytes| {
                            // so that ('ab', 'c') and ('a', 'bc') differ
                            key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                            key.extend_from_slice(bytes);
                        });
                    }
                    self.hash(&key)
                })
                .collect()
            }
        };
        Ok(Keys {
            hashes,
            times,
            whole,
        })
    }

    fn hash(&self, bytes: &[u8]) -> Hash {
        self.0.hash(bytes).as_u64()
    }
}

/// A key column whose values are equal exactly when their bytes are.
enum Column<'a> {
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Bool(&'a BooleanArray),
    /// Values of a width, from the first row on.
    Fixed(Buffer, usize),
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef) -> Result<Self> {
        let width = match array.data_type() {
            DataType::Utf8 => return Ok(Self::Text(array.as_string())),
            DataType::Binary => return Ok(Self::Binary(array.as_binary())),
            DataType::Boolean => return Ok(Self::Bool(array.as_boolean())),
            DataType::Int16 => 2,
            DataType::Int32 | DataType::Date32 => 4,
            DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, _) => 8,
            DataType::Decimal128(..) => 16,
            other => {
                return Err(Error::Internal(format!("a key column of type {other}")));
            }
        };
        let data = array.to_data();
        match data.buffers().first() {
            Some(values) => {
                let (from, length) = (data.offset() * width, data.len() * width);
                Ok(Self::Fixed(values.slice_with_length(from, length), width))
            }
            None => Err(Error::Internal("a key column without values".to_owned())),
        }
    }

    /// Gives the bytes of a row's value to `use_it`. Of a NULL they have no meaning.
    fn with<T>(&self, row: usize, use_it: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Text(array) => use_it(array.value(row).as_bytes()),
            Self::Binary(array) => use_it(array.value(row)),
            Self::Bool(array) => use_it(&[u8::from(array.value(row))]),
            Self::Fixed(values, width) => {
                let at = row * width;
                use_it(values.get(at..at + width).unwrap_or_default())
            }
        }
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch
        .column_by_name(name)
        .ok_or_else(|| Error::Internal(format!("rows without their key column \"{name}\"")))
}

fn times(array: &ArrayRef) -> Result<Vec<i64>> {
    match array.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => Ok(times.values().to_vec()),
        None => Err(Error::Internal(format!(
            "an event time of type {}",
            array.data_type()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Int32Array};

    use super::*;

    fn hashes(columns: Vec<(&str, ArrayRef)>) -> Vec<Hash> {
        let names: Vec<String> = columns.iter().map(|(n, _)| (*n).to_owned()).collect();
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let hasher = Hasher(SipHasher13::new_with_keys(1, 2));
        hasher.keys(&batch, &names, None).unwrap().hashes
    }

    #[test]
    fn borders_between_columns_count() {
        let left: ArrayRef = Arc::new(StringArray::from(vec!["ab", "a", "ab"]));
        let right: ArrayRef = Arc::new(StringArray::from(vec!["c", "bc", "c"]));
        let [one, two, three] = hashes(vec![("l", left), ("r", right)])[..] else {
            panic!("three rows");
        };
        assert_eq!(one, three);
        assert_ne!(one, two);
    }

    #[test]
    fn slices_hash_as_their_values() {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![7, 8, 9]));
        let whole = hashes(vec![("n", Arc::clone(&numbers))]);
        assert_eq!(hashes(vec![("n", numbers.slice(1, 2))]), whole[1..]);
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true]));
        let whole = hashes(vec![("n", Arc::clone(&flags))]);
        assert_eq!(hashes(vec![("n", flags.slice(2, 1))]), whole[..1]);
        let money: ArrayRef = Arc::new(Decimal128Array::from(vec![1, 2, 1]));
        let all = hashes(vec![("n", money)]);
        assert!(all[0] == all[2] && all[0] != all[1]);
    }

    #[test]
    fn a_row_without_key_or_time_is_never_asked_for() {
        let ids: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b")]));
        let times: ArrayRef = Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![
            Some(5),
            Some(6),
            None,
        ]));
        let batch = RecordBatch::try_from_iter([("id", ids), ("ts", times)]).unwrap();
        let keys = Hasher::new()
            .keys(&batch, &["id".to_owned()], Some("ts"))
            .unwrap();
        assert_eq!(keys.time(0, None), Some(5));
        assert_eq!(keys.time(1, None), None);
        assert_eq!(keys.time(2, None), None);
    }
}
