//! Lineage edges of a statement's plan, with catalog ids.

use std::collections::BTreeSet;

use catalog::{LineageEdge, Oid};
use datafusion::common::TableReference;
use datafusion::logical_expr::LogicalPlan;

use crate::dialect::time_travel::TableVersion;
use crate::engine::scope::Scope;
use crate::governance::lineage;

/// Edges from the relations that a plan (analyzed, not optimized) reads to `target`, whose columns
/// `target_columns` it writes in this order. System tables and table functions have no edges. What is
/// read through a view leads to the view, which has its own edges.
pub(super) fn edges(
    scope: &Scope,
    plan: &LogicalPlan,
    target: Oid,
    target_columns: &[String],
    statement: &str,
) -> Vec<LineageEdge> {
    let edges: BTreeSet<LineageEdge> = lineage::edges(plan, target_columns)
        .into_iter()
        .filter_map(|edge| {
            let source = relation(scope, &edge.source)?;
            Some(LineageEdge {
                target,
                target_column: edge.target_column,
                source,
                source_column: edge.source_column,
                kind: edge.kind,
                statement: statement.to_owned(),
            })
        })
        .collect();
    edges.into_iter().collect()
}

/// The relation a plan names; `None` for what is not in the catalog.
fn relation(scope: &Scope, name: &TableReference) -> Option<Oid> {
    let (bare, _) = TableVersion::of(name.table());
    let written: Vec<String> = name
        .schema()
        .into_iter()
        .chain([bare])
        .map(str::to_owned)
        .collect();
    let (schema, bare) = scope.split_name(&written).ok()?;
    scope.catalog.relation(&schema, &bare).map(|r| r.oid)
}
