//! Results that are kept by key: windows over partitions, aggregates whose state does not merge, and
//! joins of streams.
//!
//! Such a part of a query gives, for the rows of some keys, exactly its results of those keys. So results
//! are stored as they are; a key that has new rows in any stream is computed again from all its rows, and
//! the stored results of that key do not count any more. NULL is a key like any other. Tables beside the
//! streams may be part of it: when one changes, all is computed again.

mod keys;

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::Oid;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinConstraint, NullEquality, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Cast, Expr, ExprSchemable, Join, JoinType, LogicalPlan, LogicalPlanBuilder,
};
use keys::Key;

use super::core::{stream_scans, streams};
use super::maintain::bag;
use super::source::{Range, cut};
use crate::engine::scan::WeirTable;
use crate::error::Error;
use crate::stream::head::Lsn;

/// Name of the relation of keys in plans.
const CHANGED: &str = "__changed";

/// A part of a query whose results are kept by key.
#[derive(Debug, Clone)]
pub(super) struct KeyedCore {
    /// The part, down to the rows it is made from.
    pub(super) plan: LogicalPlan,
    /// Tables beside the streams that it reads.
    pub(super) tables: BTreeSet<Oid>,
    keys: Vec<Key>,
}

/// The part that starts at a node, if there is one.
pub(super) fn recognize(node: &LogicalPlan) -> Result<Option<KeyedCore>> {
    if !streams(node)? {
        return Ok(None);
    }
    let keys = keys::keys(node)?;
    if keys.is_empty() || !keys::named_apart(node.schema()) {
        return Ok(None);
    }
    Ok(Some(KeyedCore {
        plan: node.clone(),
        tables: standing(node)?,
        keys,
    }))
}

/// True when results of a node have a key, whether or not they can be kept.
pub(super) fn has_key(node: &LogicalPlan) -> Result<bool> {
    Ok(!keys::keys(node)?.is_empty())
}

/// The one part that all streaming tables lie below, if its results can be kept by key: rather one that
/// no other table is part of, as those are then read as they are at each read.
pub(super) fn kept(plan: &LogicalPlan) -> Result<Option<KeyedCore>> {
    let all = stream_scans(plan)?;
    let mut found: Option<KeyedCore> = None;
    plan.apply(|node| {
        if stream_scans(node)? < all {
            return Ok(TreeNodeRecursion::Jump);
        }
        if let Some(core) = recognize(node)?
            && (found.is_none() || core.tables.is_empty())
        {
            found = Some(core);
        }
        Ok(match &found {
            Some(core) if core.tables.is_empty() => TreeNodeRecursion::Stop,
            Some(_) | None => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// The tables without a log that a plan reads.
fn standing(plan: &LogicalPlan) -> Result<BTreeSet<Oid>> {
    let mut found = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = WeirTable::behind(&scan.source)
            && !table.head().streaming
        {
            found.insert(table.head().oid);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

impl KeyedCore {
    /// The key, for people.
    pub(super) fn shown(&self) -> String {
        let keys: Vec<String> = self.results().map(ToString::to_string).collect();
        keys.join(", ")
    }

    /// The key over the part's results.
    fn results(&self) -> impl Iterator<Item = &Expr> {
        self.keys.iter().filter_map(|key| key.results.first())
    }

    /// All results over the rows in a range.
    pub(super) fn whole(&self, range: Range) -> Result<LogicalPlan> {
        over(&self.plan, &mut 0, &mut |rows, _| match streams(&rows)? {
            true => cut(rows, range),
            false => Ok(rows),
        })
    }

    /// The keys that have rows in a range, each once.
    pub(super) fn changed(&self, range: Range) -> Result<LogicalPlan> {
        let mut found: Option<LogicalPlan> = None;
        over(&self.plan, &mut 0, &mut |rows, at| {
            if streams(&rows)? {
                let new = cut(rows.clone(), range)?;
                let mut keys = Vec::new();
                for (i, key) in self.keys.iter().enumerate() {
                    keys.push(self.of_row(key, at, &new)?.alias(name(i)));
                }
                let new = LogicalPlanBuilder::from(new).project(keys)?;
                found = Some(match found.take() {
                    None => new.build()?,
                    Some(others) => new.union(others)?.build()?,
                });
            }
            Ok(rows)
        })?;
        let found = found.ok_or_else(|| Error::Internal("keys of no stream".to_owned()))?;
        LogicalPlanBuilder::from(found).distinct()?.build()
    }

    /// The key of the rows of a leaf, in the type that it has over the results.
    fn of_row(&self, key: &Key, at: usize, rows: &LogicalPlan) -> Result<Expr> {
        let row = key.rows.get(at).cloned().flatten();
        let (Some(row), Some(result)) = (row, key.results.first()) else {
            return Err(Error::Internal("a stream without a key".to_owned()).into());
        };
        let ty = result.get_type(self.plan.schema())?;
        Ok(match row.get_type(rows.schema())? == ty {
            true => row,
            false => Expr::Cast(Cast::new(Box::new(row), ty)),
        })
    }

    /// The keys of stored results, each once.
    pub(super) fn known(&self, stored: LogicalPlan) -> Result<LogicalPlan> {
        let keys = self.results().enumerate();
        let keys = keys.map(|(i, key)| key.clone().alias(name(i)));
        LogicalPlanBuilder::from(stored)
            .project(keys.collect::<Vec<_>>())?
            .distinct()?
            .build()
    }

    /// Stored results of keys that are among `changed`, or of the others.
    pub(super) fn stored(
        &self,
        stored: LogicalPlan,
        changed: &LogicalPlan,
        among: bool,
    ) -> Result<LogicalPlan> {
        let how = match among {
            true => JoinType::LeftSemi,
            false => JoinType::LeftAnti,
        };
        matched(stored, changed, self.results().cloned().enumerate(), how)
    }

    /// Results of the changed keys, over all their rows up to a position.
    pub(super) fn of_changed(
        &self,
        changed: &LogicalPlan,
        upto: Option<Lsn>,
    ) -> Result<LogicalPlan> {
        let range = Range {
            after: Lsn::default(),
            upto,
        };
        over(&self.plan, &mut 0, &mut |rows, at| {
            let rows = match upto {
                Some(_) if streams(&rows)? => cut(rows, range)?,
                Some(_) | None => rows,
            };
            let mut keys = Vec::new();
            for (i, key) in self.keys.iter().enumerate() {
                if key.rows.get(at).is_some_and(Option::is_some) {
                    keys.push((i, self.of_row(key, at, &rows)?));
                }
            }
            match keys.is_empty() {
                true => Ok(rows),
                false => matched(rows, changed, keys.into_iter(), JoinType::LeftSemi),
            }
        })
    }

    /// What the part gives: stored results, and new ones of the keys that have rows in a range.
    pub(super) fn answer(&self, stored: LogicalPlan, range: Range) -> Result<LogicalPlan> {
        if range.upto.is_some_and(|upto| upto <= range.after) {
            return Ok(stored);
        }
        let changed = self.changed(range)?;
        bag(
            self.stored(stored, &changed, false)?,
            self.of_changed(&changed, range.upto)?,
        )
    }
}

fn name(i: usize) -> String {
    format!("__key{i}")
}

/// The part over other rows: `rows` is asked for each leaf, from left to right.
fn over(
    plan: &LogicalPlan,
    at: &mut usize,
    rows: &mut dyn FnMut(LogicalPlan, usize) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    if keys::leaf(plan)? {
        *at += 1;
        return rows(plan.clone(), *at - 1);
    }
    if let LogicalPlan::Join(join) = plan {
        return Join::try_new(
            Arc::new(over(&join.left, at, rows)?),
            Arc::new(over(&join.right, at, rows)?),
            join.on.clone(),
            join.filter.clone(),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )
        .map(LogicalPlan::Join);
    }
    let inputs = plan.inputs().into_iter().map(|input| over(input, at, rows));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    plan.with_new_exprs(plan.expressions(), inputs)
}

/// Rows whose key is among the changed ones, or is not.
fn matched(
    rows: LogicalPlan,
    changed: &LogicalPlan,
    keys: impl Iterator<Item = (usize, Expr)>,
    how: JoinType,
) -> Result<LogicalPlan> {
    let relation = TableReference::bare(CHANGED);
    let changed = LogicalPlanBuilder::from(changed.clone())
        .alias(relation.clone())?
        .build()?;
    let on = keys.map(|(i, key)| {
        let other = Column::new(Some(relation.clone()), name(i));
        (key, Expr::Column(other))
    });
    Join::try_new(
        Arc::new(rows),
        Arc::new(changed),
        on.collect(),
        None,
        how,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )
    .map(LogicalPlan::Join)
}
