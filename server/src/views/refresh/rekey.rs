//! Results kept by key: those of keys with new rows, computed again.

use std::sync::Arc;

use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;

use super::Planned;
use super::compute::{computed, count, misfit, of_files, too_great, understood};
use super::expire::Left;
use crate::error::{Error, Result};
use crate::lake::{LakeFile, LakeSnapshot};
use crate::stream::head::{Lsn, ViewHead};
use crate::views::options::Kept;
use crate::views::read::{self, Parts, restored};
use crate::views::source::Range;

/// Of ten known keys, so many may have new rows before all are computed again.
const MOST_IN_TEN: i64 = 3;

/// A state with the rows of a range: results of keys that have some come in the place of their stored ones.
pub(super) async fn rekey(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
    range: Range,
) -> Result<Left> {
    let (_, parts, layout) = understood(planned, kept, state)?;
    let Parts::Keyed(core) = parts else {
        return Err(Error::Internal("a view without keys".to_owned()));
    };
    let session = &planned.session;
    let positions = (Lsn(1), range.upto.unwrap_or(range.after));
    let stored = |some: &Arc<LakeSnapshot>| -> Result<LogicalPlan> {
        let rows = read::stored(kept.oid, &layout, some)?.ok_or_else(|| misfit(planned))?;
        Ok(restored(rows, &layout, core.plan.schema())?)
    };
    let (changed, keys) = in_memory(session, &core.changed(range)?).await?;
    let mut left = Left::default();
    if keys == 0 {
        return Ok(left);
    }
    let files = &state.state.files;
    let known = count(session, core.known(stored(&state.state)?)?).await?;
    if keys.saturating_mul(10) > known.saturating_mul(MOST_IN_TEN) {
        let all = Range {
            after: Lsn::default(),
            ..range
        };
        left.batches = computed(session, &core.whole(all)?, &layout, positions).await?;
        left.replaces = files.iter().map(|f| f.path.clone()).collect();
        return Ok(left);
    }
    let mut touched: Vec<LakeFile> = Vec::new();
    for file in files.iter() {
        let rows = stored(&of_files(state, std::slice::from_ref(file)))?;
        if count(session, core.stored(rows, &changed, true)?).await? > 0 {
            touched.push(file.clone());
        }
    }
    if !touched.is_empty() {
        let rows = stored(&of_files(state, &touched))?;
        let others = core.stored(rows, &changed, false)?;
        left.batches = computed(session, &others, &layout, positions).await?;
    }
    let new = core.of_changed(&changed, range.upto)?;
    let new = computed(session, &new, &layout, positions).await?;
    left.batches.extend(new);
    left.replaces = touched.into_iter().map(|f| f.path).collect();
    Ok(left)
}

/// A plan's rows, to be read more than once, and how many there are.
async fn in_memory(session: &SessionState, plan: &LogicalPlan) -> Result<(LogicalPlan, i64)> {
    let rows = session.create_physical_plan(plan).await?;
    let schema = rows.schema();
    let mut stream = execute_stream(rows, session.task_ctx())?;
    let (mut batches, mut count, mut bytes) = (Vec::new(), 0_i64, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        count = count.saturating_add(i64::try_from(batch.num_rows()).unwrap_or(i64::MAX));
        bytes += batch.get_array_memory_size();
        too_great(bytes)?;
        batches.push(batch);
    }
    let table = MemTable::try_new(schema, vec![batches])?;
    let source = provider_as_source(Arc::new(table));
    let plan = LogicalPlanBuilder::scan("__keys", source, None)?.build()?;
    Ok((plan, count))
}
