//! Drawers of an index from the table itself: its stored files, chosen by their statistics, and its
//! tail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::common::stats::Precision;
use futures::TryStreamExt;
use tokio::sync::OwnedMutexGuard;

use super::index::{Drawer, Index};
use super::{Gate, Gates};
use crate::error::{Error, Result};
use crate::lake::{self, LakeFile};
use crate::stream::head::{Lsn, TableHead};
use crate::types::LSN;

/// What to read of which cut of a table.
pub(super) struct Plan {
    pub(super) table: TableHead,
    pub(super) gates: Arc<Gates>,
    pub(super) gate: Arc<Gate>,
    /// The drawers that must stay.
    pub(super) needed: BTreeMap<i64, usize>,
    /// Those of them that are not in memory.
    pub(super) missing: BTreeSet<i64>,
}

impl Plan {
    /// The column that rows get their time from.
    fn time_column(&self) -> &str {
        self.gate.spec.event_time.as_deref().unwrap_or(LSN)
    }

    /// The stretches of time that are missing, ascending, those side by side in one.
    fn spans(&self, index: &Index) -> Vec<(i64, i64)> {
        let mut spans: Vec<(i64, i64)> = Vec::new();
        for number in &self.missing {
            let (from, to) = index.span(*number);
            match spans.last_mut() {
                Some((_, end)) if end.checked_add(1) == Some(from) => *end = to,
                _ => spans.push((from, to)),
            }
        }
        spans
    }

    /// False when no row of the file lies in one of the stretches.
    fn may_have(&self, file: &LakeFile, spans: &[(i64, i64)]) -> bool {
        let column = self.time_column();
        let Ok(at) = self.table.lake.schema.index_of(column) else {
            return true;
        };
        let Some(known) = file.statistics.column_statistics.get(at) else {
            return true;
        };
        let min = number(&known.min_value).unwrap_or(i64::MIN);
        let max = number(&known.max_value).unwrap_or(i64::MAX);
        let (min, max) = match self.gate.spec.event_time {
            Some(_) => (min, max),
            None => {
                let clock = &self.gates.clock;
                (clock.of(Lsn(min)), clock.of(Lsn(max)))
            }
        };
        let first = spans.partition_point(|(_, to)| *to < min);
        spans.get(first).is_some_and(|(from, _)| *from <= max)
    }
}

/// Reads what is missing into the index, whole or not at all.
pub(super) async fn load(
    plan: Plan,
    mut index: OwnedMutexGuard<Index>,
) -> Result<OwnedMutexGuard<Index>> {
    let mut drawers: BTreeMap<i64, Drawer> = plan
        .missing
        .iter()
        .map(|number| (*number, index.drawer()))
        .collect();
    let spans = plan.spans(&index);
    let lake = &plan.table.lake;
    let mut names: Vec<&str> = plan.gate.spec.key.iter().map(String::as_str).collect();
    if !names.contains(&plan.time_column()) {
        names.push(plan.time_column());
    }
    for file in lake.files.iter().filter(|f| plan.may_have(f, &spans)) {
        let mut rows = lake::read_columns(lake, file, &names).await?;
        while let Some(batch) = rows.try_next().await? {
            file_rows(&plan, &index, &batch, &mut drawers)?;
            plan.gates
                .make_room(&plan.gate, &mut index, &plan.needed, 0)?;
        }
    }
    for part in &plan.table.tail {
        file_rows(&plan, &index, &part.batch, &mut drawers)?;
    }
    plan.gates
        .make_room(&plan.gate, &mut index, &plan.needed, 0)?;
    for (number, drawer) in drawers {
        index.put(number, drawer);
    }
    Ok(index)
}

/// Files the rows of a batch that fall into the drawers.
fn file_rows(
    plan: &Plan,
    index: &Index,
    batch: &RecordBatch,
    drawers: &mut BTreeMap<i64, Drawer>,
) -> Result<()> {
    let keys = plan.gate.keys(batch)?;
    let arrivals = match plan.gate.spec.event_time {
        Some(_) => None,
        None => Some(arrivals(plan, batch)?),
    };
    for (row, hash) in keys.hashes.iter().enumerate() {
        let arrival = arrivals.as_ref().and_then(|a| a.get(row)).copied();
        let Some(time) = keys.time(row, arrival) else {
            continue;
        };
        let (slot, number) = index.place(time);
        if let Some(drawer) = drawers.get_mut(&number) {
            drawer.store(*hash, slot, time);
        }
    }
    drawers.values_mut().for_each(Drawer::count);
    Ok(())
}

/// When the rows were accepted, by their positions.
fn arrivals(plan: &Plan, batch: &RecordBatch) -> Result<Vec<i64>> {
    let positions = batch
        .column_by_name(LSN)
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| Error::Internal("stored rows without positions".to_owned()))?;
    let positions = positions.values().iter();
    Ok(positions
        .map(|lsn| plan.gates.clock.of(Lsn(*lsn)))
        .collect())
}

fn number(bound: &Precision<ScalarValue>) -> Option<i64> {
    match bound.get_value()? {
        ScalarValue::Int64(Some(n)) | ScalarValue::TimestampMicrosecond(Some(n), _) => Some(*n),
        _ => None,
    }
}
