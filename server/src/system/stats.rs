//! Sizes of tables at a cut: what is stored and what is still in memory.

use catalog::Oid;
use datafusion::common::stats::Precision;

use crate::lake::LakeSnapshot;
use crate::stream::head::DbHead;

/// Figures of one table or view state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Delta version.
    pub(super) version: i64,
    /// Active files.
    pub(super) files: usize,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Stored rows, when every file says how many it has.
    pub(super) stored_rows: Option<u64>,
    /// Rows in memory.
    pub(super) tail_rows: u64,
    /// Highest stored position, of streaming tables.
    pub(super) flushed: Option<i64>,
}

impl Figures {
    /// Stored and in memory.
    pub(super) fn rows(&self) -> Option<u64> {
        self.stored_rows.map(|r| r + self.tail_rows)
    }
}

/// The figures of a relation, when it has any storage at this cut.
pub(super) fn figures(head: &DbHead, oid: Oid) -> Option<Figures> {
    if let Some(table) = head.tables.get(&oid) {
        let tail = table.tail.iter().map(|t| t.batch.num_rows() as u64).sum();
        return Some(Figures {
            tail_rows: tail,
            flushed: table.streaming.then_some(table.flushed.0),
            ..stored(&table.lake)
        });
    }
    head.views.get(&oid).map(|view| Figures {
        flushed: Some(view.durable.0),
        ..stored(&view.state)
    })
}

fn stored(lake: &LakeSnapshot) -> Figures {
    Figures {
        version: lake.version,
        files: lake.files.len(),
        bytes: lake.files.iter().map(|f| f.size).sum(),
        stored_rows: lake
            .files
            .iter()
            .map(|f| match f.statistics.num_rows {
                Precision::Exact(n) => Some(n as u64),
                Precision::Inexact(_) | Precision::Absent => None,
            })
            .sum(),
        ..Figures::default()
    }
}
