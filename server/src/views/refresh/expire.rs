//! State below a view's floor, dropped.

use std::collections::BTreeSet;

use datafusion::common::Column;
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder};

use super::Planned;
use super::compute::{computed, count, folded, misfit, of_files, range, understood};
use super::spool::Spool;
use crate::error::Result;
use crate::lake::LakeFile;
use crate::stream::head::ViewHead;
use crate::views::core::Core;
use crate::views::floor::Aged;
use crate::views::maintain;
use crate::views::options::Kept;
use crate::views::read::{self, Parts, restored};
use crate::views::state::Layout;

/// Bytes of files that are written again at once for results that are dropped.
const DROPPED_BYTES: u64 = 128 << 20;

/// What is left of files when results are dropped.
#[derive(Debug)]
pub(super) struct Left {
    /// The files.
    pub(super) replaces: BTreeSet<String>,
    /// What comes in their place.
    pub(super) rows: Spool,
    /// How many rows less that is.
    pub(super) gone: usize,
}

impl Left {
    /// Nothing goes and nothing comes.
    pub(super) fn of(planned: &Planned, layout: &Layout) -> Self {
        Self {
            replaces: BTreeSet::new(),
            rows: planned.spool(layout),
            gone: 0,
        }
    }
}

/// A state without what lies below a floor, when some of it is overdue: files that have nothing else go
/// as they are.
pub(super) async fn expire(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
    (column, at, overdue): (usize, i64, i64),
) -> Result<Left> {
    let (plan, parts, layout) = understood(planned, kept, state)?;
    let Some(aged) = Aged::of(kept.strategy, &plan, column)? else {
        return Ok(Left::of(planned, &layout));
    };
    let files = &state.state.files;
    let mut old = Vec::new();
    // states of one session may lie in any of the files
    let together = matches!(&parts, Parts::Core(core) if matches!(**core, Core::Session(_)));
    match together {
        true => {
            let all = Some(files.to_vec());
            if !files.is_empty() && below(planned, kept, state, files, &aged, overdue).await? > 0 {
                old.extend(all);
            }
        }
        false => {
            let mut bytes = 0;
            for file in files.iter() {
                let one = [file.clone()];
                if bytes < DROPPED_BYTES
                    && below(planned, kept, state, &one, &aged, overdue).await? > 0
                {
                    bytes += file.size;
                    old.push(one.to_vec());
                }
            }
        }
    }
    let mut left = Left::of(planned, &layout);
    for files in old {
        let some = of_files(state, &files);
        let rows = some.rows().unwrap_or(0);
        let plan = match &parts {
            Parts::Full | Parts::Keyed(_) => continue,
            Parts::Append => {
                let rows = read::stored_rows(kept.oid, &some)?;
                let stays = aged.stays(stored_time(&plan, &layout, column), at)?;
                LogicalPlanBuilder::from(rows).filter(stays)?.build()?
            }
            Parts::Core(core) => {
                let folded = folded(planned, kept, state, core, &layout, &some)?;
                let stays = aged.states_stay(core, at)?;
                LogicalPlanBuilder::from(folded).filter(stays)?.build()?
            }
        };
        let range = range(&files, &some, state.durable);
        let before = left.rows.rows();
        computed(&planned.session, &plan, &layout, range, &mut left.rows).await?;
        left.gone += rows.saturating_sub(left.rows.rows() - before);
        left.replaces.extend(files.into_iter().map(|f| f.path));
    }
    Ok(left)
}

/// How many stored rows of some files lie below a floor. Of sessions it counts those that may be a part
/// of one that does not.
async fn below(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
    files: &[LakeFile],
    aged: &Aged,
    floor: i64,
) -> Result<i64> {
    let (plan, parts, layout) = understood(planned, kept, state)?;
    let some = of_files(state, files);
    let (rows, stays) = match &parts {
        Parts::Full | Parts::Keyed(_) => return Ok(0),
        Parts::Append => {
            let Some(column) = kept.ages_by else {
                return Ok(0);
            };
            let rows = read::stored_rows(kept.oid, &some)?;
            (
                rows,
                aged.stays(stored_time(&plan, &layout, column), floor)?,
            )
        }
        Parts::Core(core) => {
            let stored = read::stored(kept.oid, &layout, &some)?.ok_or_else(|| misfit(planned))?;
            let schema = maintain::restored_schema(core)?;
            let rows = restored(stored, &layout, &schema)?;
            (rows, aged.states_stay(core, floor)?)
        }
    };
    let rows = LogicalPlanBuilder::from(rows)
        .filter(stays.is_not_true())?
        .build()?;
    count(&planned.session, rows).await
}

/// The time of an APPEND view's stored rows.
fn stored_time(plan: &LogicalPlan, layout: &Layout, column: usize) -> Expr {
    let stored = layout.stored();
    // the position stands in front
    let time = Expr::Column(Column::new_unqualified(stored.field(column + 1).name()));
    Expr::Cast(Cast::new(
        Box::new(time),
        plan.schema().field(column).data_type().clone(),
    ))
}
