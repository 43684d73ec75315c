//! Reading a view: its query, with the part that is stored replaced by the state.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use catalog::{Oid, Strategy};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder};

use super::analysis::{Analysis, prepared};
use super::merge::MergeStates;
use super::source::{Range, cut};
use super::split::Split;
use super::state::{HI, LO, Layout};
use crate::engine::scan::WeirTable;
use crate::error::Error;
use crate::lake::LakeSnapshot;
use crate::stream::head::ViewHead;

/// What reading the view means at the statement's cut: exactly what `plan` would give.
///
/// `plan` is the view's query, planned over the tables of the same cut as `head` (and analyzed, as
/// for [`super::analyze`]); `name` is shown in EXPLAIN. The result has the columns of `plan`.
pub fn read_plan(name: &str, view: Oid, plan: LogicalPlan, head: &ViewHead) -> Result<LogicalPlan> {
    let analysis = super::analyze(name, &plan)?;
    let plan = prepared(plan)?;
    let stored = stored(name, view, &analysis, &head.state)?;
    let range = Range {
        after: head.durable,
        upto: None,
    };
    match analysis.strategy {
        Strategy::Append => {
            let columns: Vec<_> = plan
                .schema()
                .iter()
                .map(|(r, f)| (r.cloned(), Arc::clone(f)))
                .collect();
            let kept = LogicalPlanBuilder::from(stored).project(restored(
                analysis.layout.stored().fields().iter().skip(1),
                &columns,
            ))?;
            let all = kept.union(cut(plan, range)?)?;
            let names = all.schema().columns();
            all.project(
                names
                    .into_iter()
                    .zip(columns)
                    .map(|(column, (relation, field))| {
                        Expr::Column(column).alias_qualified(relation, field.name())
                    }),
            )?
            .build()
        }
        Strategy::Agg => {
            let merged = plan.transform_down(|node| match node {
                LogicalPlan::Aggregate(aggregate) => {
                    let mut split = Split::new(&aggregate)?;
                    split.rows = cut(split.rows, range)?;
                    let states = states(&split, &analysis, stored.clone())?;
                    let merged = MergeStates::plan(name, head.durable, split, states);
                    Ok(Transformed::new(merged, true, TreeNodeRecursion::Jump))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(merged.data)
        }
    }
}

/// The state table of a view, scanned; its columns are checked against what the query keeps.
pub(super) fn stored(
    name: &str,
    view: Oid,
    analysis: &Analysis,
    state: &Arc<LakeSnapshot>,
) -> Result<LogicalPlan> {
    let same = |a: &SchemaRef, b: &SchemaRef| {
        let ty = |f: &FieldRef| (f.name().clone(), f.data_type().clone());
        a.fields().iter().map(ty).eq(b.fields().iter().map(ty))
    };
    if !same(&analysis.layout.stored(), &state.schema) {
        return Err(Error::Internal(format!(
            "the state of materialized view \"{name}\" does not fit its query"
        ))
        .into());
    }
    let table = WeirTable::at_version(view, Arc::clone(state));
    let source = provider_as_source(Arc::new(table));
    LogicalPlanBuilder::scan(TableReference::bare(STATE), source, None)?.build()
}

/// Stored keys under the names of the aggregation, then state columns.
pub(super) fn states(
    split: &Split,
    analysis: &Analysis,
    stored: LogicalPlan,
) -> Result<LogicalPlan> {
    let Layout::Agg { keys, states } = &analysis.layout else {
        return Err(Error::Internal("states of a view that keeps none".to_owned()).into());
    };
    let fields = analysis.layout.stored();
    let named: Vec<_> = (0..keys.len())
        .map(|i| {
            let (relation, field) = split.schema.qualified_field(i);
            (relation.cloned(), Arc::clone(field))
        })
        .collect();
    let count: usize = states.iter().map(Vec::len).sum();
    let columns = restored(fields.fields().iter(), &named)
        .chain((0..count).map(|i| column(&format!("s{i}")).alias(format!("__state{i}"))));
    LogicalPlanBuilder::from(stored).project(columns)?.build()
}

/// The stored columns that are there to be merged again: keys and states, without the range.
pub(super) fn without_range(fields: &SchemaRef) -> impl Iterator<Item = Expr> + '_ {
    let kept = fields
        .fields()
        .iter()
        .filter(|f| f.name() != LO && f.name() != HI);
    kept.map(|f| column(f.name()))
}

const STATE: &str = "_state";

fn column(name: &str) -> Expr {
    Expr::Column(Column::new(Some(TableReference::bare(STATE)), name))
}

type Named = (Option<TableReference>, FieldRef);

/// Stored columns cast back and named as the query names them.
fn restored<'a>(
    stored: impl Iterator<Item = &'a FieldRef>,
    wanted: &'a [Named],
) -> impl Iterator<Item = Expr> {
    stored.zip(wanted).map(|(stored, (relation, field))| {
        let mut expr = column(stored.name());
        if stored.data_type() != field.data_type() {
            expr = Expr::Cast(Cast::new(Box::new(expr), field.data_type().clone()));
        }
        let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(field.as_ref()));
        expr.alias_qualified_with_metadata(relation.clone(), field.name(), metadata)
    })
}
