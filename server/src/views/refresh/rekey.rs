//! Results kept by key: those of keys with new rows, computed again.

use std::sync::Arc;

use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;

use super::Planned;
use super::compute::{computed, count, misfit, of_files, understood};
use super::expire::Left;
use super::spool::bytes;
use crate::error::{Error, Result};
use crate::lake::{LakeFile, LakeSnapshot};
use crate::stream::head::{Lsn, ViewHead};
use crate::views::options::Kept;
use crate::views::read::{self, Parts, restored};
use crate::views::source::Range;

/// Of ten known keys, so many may have new rows before all are computed again; keys that do not fit into
/// memory are too many.
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
    let mut left = Left::of(planned, &layout);
    let files = &state.state.files;
    let changed = Keys::read(session, &core.changed(range)?).await?;
    let few = match changed {
        Some(keys) if keys.count == 0 => return Ok(left),
        Some(keys) => {
            let known = count(session, core.known(stored(&state.state)?)?).await?;
            let few = keys.count.saturating_mul(10) <= known.saturating_mul(MOST_IN_TEN);
            few.then_some(keys)
        }
        None => None,
    };
    let Some(Keys { plan: changed, .. }) = &few else {
        let all = Range {
            after: Lsn::default(),
            ..range
        };
        let whole = core.whole(all)?;
        computed(session, &whole, &layout, positions, &mut left.rows).await?;
        left.replaces = files.iter().map(|f| f.path.clone()).collect();
        return Ok(left);
    };
    let mut touched: Vec<LakeFile> = Vec::new();
    for file in files.iter() {
        let rows = stored(&of_files(state, std::slice::from_ref(file)))?;
        if count(session, core.stored(rows, changed, true)?).await? > 0 {
            touched.push(file.clone());
        }
    }
    if !touched.is_empty() {
        let rows = stored(&of_files(state, &touched))?;
        let others = core.stored(rows, changed, false)?;
        computed(session, &others, &layout, positions, &mut left.rows).await?;
    }
    let new = core.of_changed(changed, range.upto)?;
    computed(session, &new, &layout, positions, &mut left.rows).await?;
    left.replaces = touched.into_iter().map(|f| f.path).collect();
    Ok(left)
}

/// Keys in memory, to be read more than once.
struct Keys {
    plan: LogicalPlan,
    count: i64,
    _memory: MemoryReservation,
}

impl Keys {
    /// The rows of a plan; `None` when there is no memory for them.
    async fn read(session: &SessionState, plan: &LogicalPlan) -> Result<Option<Self>> {
        let rows = session.create_physical_plan(plan).await?;
        let schema = rows.schema();
        let mut stream = execute_stream(rows, session.task_ctx())?;
        let pool = &session.runtime_env().memory_pool;
        let memory = MemoryConsumer::new("changed keys of a view").register(pool);
        let (mut batches, mut count) = (Vec::new(), 0_i64);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            count = count.saturating_add(i64::try_from(batch.num_rows()).unwrap_or(i64::MAX));
            if memory.try_grow(bytes(&batch)?).is_err() {
                return Ok(None);
            }
            batches.push(batch);
        }
        let table = MemTable::try_new(schema, vec![batches])?;
        let source = provider_as_source(Arc::new(table));
        Ok(Some(Self {
            plan: LogicalPlanBuilder::scan("__keys", source, None)?.build()?,
            count,
            _memory: memory,
        }))
    }
}
