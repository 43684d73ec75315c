//! Where a source stands: which of its messages the log has taken in.
//!
//! A record of the log carries the positions that its rows bring their source to, so a position is
//! never ahead of its rows nor behind them. A flush hands positions on to the table's Delta log, in
//! the commit that stores the rows: what Delta says and the records above it are all there is to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use catalog::Oid;

use super::head::Lsn;
use crate::error::{Error, Result, SqlState};

/// What the bytes of a record's source begin with.
const TOPIC_POSITIONS: u8 = 1;
/// Bytes before the topic: kind, one unused, length of the topic, table, number of partitions.
const FIXED: usize = 12;
/// Bytes of a partition and its next offset.
const ENTRY: usize = 12;

/// The next offsets to read of a topic's partitions, once the rows that come with them are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// The table that the topic feeds.
    pub table: Oid,
    /// The topic.
    pub topic: Arc<str>,
    /// Partition → next offset; partitions that brought nothing may be left out.
    pub next: BTreeMap<i32, i64>,
}

impl Positions {
    /// The bytes that a record carries.
    pub fn to_bytes(&self) -> Vec<u8> {
        let topic = self.topic.as_bytes();
        let mut bytes = Vec::with_capacity(FIXED + topic.len() + self.next.len() * ENTRY);
        bytes.extend([TOPIC_POSITIONS, 0]);
        bytes.extend(u16::try_from(topic.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(self.table.0.to_le_bytes());
        let count = u32::try_from(self.next.len()).unwrap_or(u32::MAX);
        bytes.extend(count.to_le_bytes());
        bytes.extend(topic);
        for (partition, next) in &self.next {
            bytes.extend(partition.to_le_bytes());
            bytes.extend(next.to_le_bytes());
        }
        bytes
    }

    /// Reads them back; `None` for a record that came from no source.
    ///
    /// # Errors
    /// `XX001` for bytes that are no positions.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        parse(bytes).map(Some).ok_or_else(|| {
            Error::refused(
                SqlState::DATA_CORRUPTED,
                "a record of the log has a source that cannot be read",
            )
            .with_hint("it may have been written by a newer version of the server")
        })
    }

    /// The application whose version in the table's Delta log is a partition's next offset.
    pub(super) fn app(table: Oid, topic: &str, partition: i32) -> String {
        format!("weir/{table}/kafka/{topic}/{partition}")
    }
}

fn parse(bytes: &[u8]) -> Option<Positions> {
    let fixed = bytes.first_chunk::<FIXED>()?;
    if fixed[0] != TOPIC_POSITIONS {
        return None;
    }
    let topic_length = usize::from(u16::from_le_bytes([fixed[2], fixed[3]]));
    let table = u32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let count = u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
    let (topic, entries) = bytes.get(FIXED..)?.split_at_checked(topic_length)?;
    if entries.len() != usize::try_from(count).ok()?.checked_mul(ENTRY)? {
        return None;
    }
    let mut next = BTreeMap::new();
    for entry in entries.chunks_exact(ENTRY) {
        let (partition, offset) = entry.split_at_checked(4)?;
        let partition = i32::from_le_bytes(*partition.first_chunk()?);
        next.insert(partition, i64::from_le_bytes(*offset.first_chunk()?));
    }
    Some(Positions {
        table: Oid(table),
        topic: std::str::from_utf8(topic).ok()?.into(),
        next,
    })
}

/// The table whose source a record's bytes speak of.
pub(super) fn table_of(source: &Bytes) -> Option<Oid> {
    let fixed = source.first_chunk::<FIXED>()?;
    let table = u32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    (fixed[0] == TOPIC_POSITIONS).then_some(Oid(table))
}

/// What is known of a table's source since the log was opened.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<(Arc<str>, i32), Position>);

/// A partition's next offset, and the record that brought it.
#[derive(Debug, Clone, Copy)]
struct Position {
    next: i64,
    lsn: Lsn,
}

impl Known {
    /// Takes in the positions of the record that ends at `lsn`. The newest record is right, even
    /// where its offset is lower: a topic may have been made anew.
    pub(super) fn arrived(&mut self, positions: &Positions, lsn: Lsn) {
        for (partition, next) in &positions.next {
            let key = (Arc::clone(&positions.topic), *partition);
            self.0.insert(key, Position { next: *next, lsn });
        }
    }

    /// The newest position of any partition.
    pub(super) fn newest(&self) -> Lsn {
        self.0.values().map(|p| p.lsn).max().unwrap_or_default()
    }

    /// A partition's next offset.
    pub(super) fn next(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0
            .get(&(Arc::from(topic), partition))
            .map(|position| position.next)
    }

    /// What a commit has to store beside the rows above `flushed`.
    pub(super) fn marks(&self, table: Oid) -> Vec<(Lsn, (String, i64))> {
        self.0
            .iter()
            .map(|((topic, partition), position)| {
                let app = Positions::app(table, topic, *partition);
                (position.lsn, (app, position.next))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_read_back(
            table: u32,
            topic in "[a-zA-Z0-9._-]{0,249}",
            next in proptest::collection::btree_map(any::<i32>(), any::<i64>(), 0..20),
        ) {
            let positions = Positions { table: Oid(table), topic: topic.into(), next };
            let bytes = positions.to_bytes();
            prop_assert_eq!(table_of(&Bytes::from(bytes.clone())), Some(Oid(table)));
            prop_assert_eq!(Positions::read(&bytes).unwrap(), Some(positions));
            for cut in 1..bytes.len() {
                prop_assert!(Positions::read(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn other_bytes_are_refused_and_nothing_more(bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            drop(Positions::read(&bytes));
        }
    }

    #[test]
    fn the_newest_record_is_right() {
        let at = |next| Positions {
            table: Oid(1),
            topic: "t".into(),
            next: BTreeMap::from([(0, next)]),
        };
        let mut known = Known::default();
        known.arrived(&at(90), Lsn(5));
        known.arrived(&at(3), Lsn(9));
        assert_eq!(known.next("t", 0), Some(3));
        assert_eq!(known.next("t", 1), None);
        assert_eq!(known.newest(), Lsn(9));
        let app = "weir/1/kafka/t/0".to_owned();
        assert_eq!(known.marks(Oid(1)), [(Lsn(9), (app, 3))]);
    }
}
