//! Reading a view: its query, with the part that is stored replaced by the state.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use catalog::{Oid, Strategy};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder};

use super::analysis::{kept_core, layout_of, strategy_name};
use super::core::{self, Core};
use super::distinct::prepared;
use super::floor::{self, Aged};
use super::keyed::{self, KeyedCore};
use super::maintain::{self, bag};
use super::nodes::Shown;
use super::options::Kept;
use super::source::{Range, cut, positionable};
use super::state::{HI, LO, Layout};
use crate::engine::scan::WeirTable;
use crate::lake::LakeSnapshot;
use crate::stream::head::{DbHead, Lsn, ViewHead};
use crate::types::LSN;

/// What is kept of a query: its core, or all its rows.
#[derive(Debug, Clone)]
pub(super) enum Parts {
    /// The result rows of an APPEND view, by position.
    Append,
    /// A core.
    Core(Box<Core>),
    /// Results by key.
    Keyed(Box<KeyedCore>),
    /// The whole result.
    Full,
}

/// New rows that are looked up by key whatever their part of all rows is.
const FEW: i64 = 10_000;

/// What reading the view means at the statement's cut: exactly what `plan` would give, or what it gave
/// at the last refresh when the view has a schedule.
///
/// `plan` is the view's query, planned over the tables of the same cut as `head` (and analyzed, as
/// for [`super::analyze`]); `name` is shown in EXPLAIN. The result has the columns of `plan`.
pub fn read_plan(name: &str, kept: &Kept, plan: LogicalPlan, head: &DbHead) -> Result<LogicalPlan> {
    let Some(state) = head.views.get(&kept.oid) else {
        return Ok(plan);
    };
    let whole = plan;
    let parts_plan = match kept.strategy {
        Strategy::Full => whole.clone(),
        _ => prepared(whole.clone())?,
    };
    let floor = kept.ages_by.zip(state.floor.at);
    // the query as it is, without what its retention has dropped
    let plan = match floor {
        None => whole,
        Some((column, at)) => floor::restricted(kept.strategy, &parts_plan, column, at)?,
    };
    if !usable(kept, state, head) {
        return Ok(plan);
    }
    let Some((parts, layout)) = parts(kept.strategy, &parts_plan)? else {
        tracing::warn!(
            view = name,
            "the state's strategy does not fit its query any more"
        );
        return Ok(plan);
    };
    let Some(stored) = stored(kept.oid, &layout, &state.state)? else {
        tracing::warn!(view = name, "the state does not fit its query any more");
        return Ok(plan);
    };
    let range = Range {
        after: state.durable,
        upto: kept.options.schedule.map(|_| state.durable),
    };
    let shown = Shown {
        view: name.to_owned(),
        strategy: strategy_name(kept.strategy),
        durable: state.durable,
    };
    match parts {
        Parts::Full => restored(stored, &layout, plan.schema()),
        Parts::Keyed(core) => {
            let newest = newest(kept, head);
            if range.upto.is_none() && most_is_new(kept, head, newest.0 - state.durable.0) {
                return Ok(plan);
            }
            let range = Range {
                upto: range
                    .upto
                    .or((newest <= state.durable).then_some(state.durable)),
                ..range
            };
            let stored = restored(stored, &layout, core.plan.schema())?;
            let answer = core.answer(stored, range)?;
            let merged = parts_plan.transform_down(|node| match node == core.plan {
                true => Ok(Transformed::new(
                    answer.clone(),
                    true,
                    TreeNodeRecursion::Jump,
                )),
                false => Ok(Transformed::no(node)),
            })?;
            Ok(merged.data)
        }
        Parts::Append => {
            let stored = restored(stored, &layout, parts_plan.schema())?;
            let rows = bag(stored, cut(parts_plan, range)?)?;
            match floor {
                None => Ok(rows),
                Some((column, at)) => floor::restricted(kept.strategy, &rows, column, at),
            }
        }
        Parts::Core(_) => {
            let late = floor.filter(|_| state.durable >= state.floor.from);
            let late = match late {
                None => None,
                Some((column, at)) => {
                    Aged::of(kept.strategy, &parts_plan, column)?.map(|aged| (aged, at))
                }
            };
            let core_plan = if floor.is_some() { plan } else { parts_plan };
            let merged = core_plan.transform_down(|node| match core::recognize(&node)? {
                Ok(core) => {
                    let core = match &late {
                        None => core,
                        Some((aged, at)) => aged.of_rows(&core, *at, false)?,
                    };
                    let schema = maintain::restored_schema(&core)?;
                    let stored = restored(stored.clone(), &layout, &schema)?;
                    let answer = maintain::answer(&core, stored, range, shown.clone())?;
                    Ok(Transformed::new(answer, true, TreeNodeRecursion::Jump))
                }
                Err(_) => Ok(Transformed::no(node)),
            })?;
            Ok(merged.data)
        }
    }
}

/// True when so many rows are new that looking for their keys costs more than asking all rows.
fn most_is_new(kept: &Kept, head: &DbHead, new: i64) -> bool {
    let tables = kept.sources.iter().filter_map(|oid| head.tables.get(oid));
    let rows = tables.map(|t| {
        let tail: usize = t.tail.iter().map(|b| b.batch.num_rows()).sum();
        t.lake.rows().unwrap_or(0).saturating_add(tail)
    });
    let rows = i64::try_from(rows.sum::<usize>()).unwrap_or(i64::MAX);
    new > FEW && new.saturating_mul(10) > rows.saturating_mul(3)
}

/// True when the state may stand for the rows it was made from.
fn usable(kept: &Kept, state: &ViewHead, head: &DbHead) -> bool {
    if kept.options.schedule.is_some() {
        return state.refreshed_at.is_some();
    }
    match kept.strategy {
        Strategy::Full => is_current(kept, state, head),
        _ => kept.ignores_changes() || state.is_of(&kept.sources, head),
    }
}

/// True when a whole result was made from exactly what the head holds.
pub(super) fn is_current(kept: &Kept, state: &ViewHead, head: &DbHead) -> bool {
    state.refreshed_at.is_some()
        && state.is_of(&kept.sources, head)
        && newest(kept, head) <= state.durable
}

/// The newest position of the streaming tables a view reads.
pub(super) fn newest(kept: &Kept, head: &DbHead) -> Lsn {
    let tables = kept.sources.iter().filter_map(|oid| head.tables.get(oid));
    let streams = tables.filter(|t| t.streaming);
    streams.map(|t| t.newest()).max().unwrap_or_default()
}

/// What is kept of a prepared query by a strategy, and how; nothing when it does not fit.
pub(super) fn parts(strategy: Strategy, plan: &LogicalPlan) -> Result<Option<(Parts, Layout)>> {
    let columns = || plan.schema().fields().iter().cloned().collect();
    Ok(match strategy {
        Strategy::Full => Some((Parts::Full, Layout::Rows(columns()))),
        Strategy::Append if positionable(plan) => Some((Parts::Append, Layout::Append(columns()))),
        Strategy::Append => None,
        Strategy::Keyed => keyed::kept(plan)?.map(|core| {
            let columns = core.plan.schema().fields().iter().cloned().collect();
            (Parts::Keyed(Box::new(core)), Layout::Rows(columns))
        }),
        Strategy::Agg | Strategy::Agg2 | Strategy::Session | Strategy::Top => {
            match kept_core(plan)? {
                Ok(core) => {
                    let layout = layout_of(&core)?;
                    Some((Parts::Core(Box::new(core)), layout))
                }
                Err(_) => None,
            }
        }
    })
}

/// The state table of a view, scanned; nothing when its columns are not those the query keeps.
pub(super) fn stored(
    view: Oid,
    layout: &Layout,
    state: &Arc<LakeSnapshot>,
) -> Result<Option<LogicalPlan>> {
    let same = |a: &SchemaRef, b: &SchemaRef| {
        let ty = |f: &FieldRef| (f.name().clone(), f.data_type().clone());
        a.fields().iter().map(ty).eq(b.fields().iter().map(ty))
    };
    if !same(&layout.stored(), &state.schema) {
        return Ok(None);
    }
    let table = WeirTable::at_version(view, Arc::clone(state));
    let source = provider_as_source(Arc::new(table));
    LogicalPlanBuilder::scan(TableReference::bare(STATE), source, None)?
        .build()
        .map(Some)
}

/// The rows of a state as they are, positions included.
pub(super) fn stored_rows(view: Oid, state: &Arc<LakeSnapshot>) -> Result<LogicalPlan> {
    let table = WeirTable::at_version(view, Arc::clone(state));
    let table = WeirTable::new(Arc::clone(table.head()), true);
    let source = provider_as_source(Arc::new(table));
    LogicalPlanBuilder::scan(TableReference::bare(STATE), source, None)?.build()
}

const STATE: &str = "_state";

/// Stored columns cast back and named as the query names them, without positions.
pub(super) fn restored(
    stored: LogicalPlan,
    layout: &Layout,
    wanted: &DFSchema,
) -> Result<LogicalPlan> {
    let fields = layout.stored();
    let positions: &[&str] = match layout {
        Layout::Append(_) => &[LSN],
        Layout::Agg { .. } => &[LO, HI],
        Layout::Rows(_) => &[],
    };
    let kept = fields
        .fields()
        .iter()
        .filter(|f| !positions.contains(&f.name().as_str()));
    let columns = kept.zip(wanted.iter()).map(|(stored, (relation, field))| {
        let column = Column::new(Some(TableReference::bare(STATE)), stored.name());
        let mut expr = Expr::Column(column);
        if stored.data_type() != field.data_type() {
            expr = Expr::Cast(Cast::new(Box::new(expr), field.data_type().clone()));
        }
        let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(field.as_ref()));
        expr.alias_qualified_with_metadata(relation.cloned(), field.name(), metadata)
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(stored).project(columns)?.build()
}
