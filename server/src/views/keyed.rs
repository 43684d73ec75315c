//! Results that are kept by key: windows over partitions, and aggregates whose state does not merge.
//!
//! Such a part of a query gives, for the rows of some keys, exactly its results of those keys. So results
//! are stored as they are; a key that has new rows is computed again from all its rows, and the stored
//! results of that key do not count any more. NULL is a key like any other.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinConstraint, NullEquality, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, JoinType, LogicalPlan, LogicalPlanBuilder,
};

use super::core::{has_subquery, plain_rows, stream_scans, streams};
use super::maintain::bag;
use super::source::{Range, cut};
use crate::error::Error;
use crate::stream::head::Lsn;

/// Name of the relation of keys in plans.
const CHANGED: &str = "__changed";

/// A part of a query whose results are kept by key.
#[derive(Debug, Clone)]
pub(super) struct KeyedCore {
    /// The part, down to plain rows.
    pub(super) plan: LogicalPlan,
    keys: Vec<Key>,
}

/// One column of the key.
#[derive(Debug, Clone)]
struct Key {
    /// Over the part's results.
    result: Expr,
    /// Over the rows that it is made from.
    row: Expr,
}

/// What the rows of a plan can be told apart by.
enum Keys {
    /// Any of their columns: each is made from one row.
    Any,
    /// These.
    Of(Vec<Key>),
}

/// The part that starts at a node, if there is one.
pub(super) fn recognize(node: &LogicalPlan) -> Result<Option<KeyedCore>> {
    if !streams(node)? {
        return Ok(None);
    }
    Ok(match keys(node)? {
        Some(Keys::Of(keys)) => Some(KeyedCore {
            plan: node.clone(),
            keys,
        }),
        Some(Keys::Any) | None => None,
    })
}

/// The one part that all streaming tables lie below, if its results can be kept by key.
pub(super) fn kept(plan: &LogicalPlan) -> Result<Option<KeyedCore>> {
    let mut found = None;
    plan.apply(|node| {
        found = recognize(node)?;
        Ok(match found {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    })?;
    let all = stream_scans(plan)?;
    Ok(match found {
        Some(core) if stream_scans(&core.plan)? == all => Some(core),
        Some(_) | None => None,
    })
}

fn keys(plan: &LogicalPlan) -> Result<Option<Keys>> {
    if plain_rows(plan) {
        return Ok(Some(Keys::Any));
    }
    if has_subquery(plan)? {
        return Ok(None);
    }
    let input = match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_) => plan.inputs().into_iter().next(),
        _ => None,
    };
    let Some(input) = input else {
        return Ok(None);
    };
    let Some(below) = keys(input)? else {
        return Ok(None);
    };
    let found: Vec<Key> = match (plan, below) {
        (LogicalPlan::Window(window), below) => {
            let mut common: Option<Vec<Expr>> = None;
            for expr in &window.window_expr {
                let Expr::WindowFunction(f) = expr.clone().unalias_nested().data else {
                    return Ok(None);
                };
                let of = f.params.partition_by.clone();
                common = Some(match common {
                    None => of,
                    Some(before) => before.into_iter().filter(|e| of.contains(e)).collect(),
                });
            }
            let common = common.unwrap_or_default();
            match below {
                Keys::Any => common.into_iter().map(Key::of_row).collect(),
                Keys::Of(keys) => {
                    let shared = keys.into_iter().filter(|key| common.contains(&key.result));
                    shared.collect()
                }
            }
        }
        (LogicalPlan::Aggregate(aggregate), below) => {
            let mut found = Vec::new();
            for (i, group) in aggregate.group_expr.iter().enumerate() {
                let result = Expr::Column(Column::from(aggregate.schema.qualified_field(i)));
                let group = group.clone().unalias_nested().data;
                if matches!(group, Expr::GroupingSet(_)) {
                    return Ok(None);
                }
                let row = match &below {
                    Keys::Any => Some(group),
                    Keys::Of(keys) => {
                        let same = keys.iter().find(|key| key.result == group);
                        same.map(|key| key.row.clone())
                    }
                };
                found.extend(row.map(|row| Key { result, row }));
            }
            found
        }
        (_, Keys::Any) => return Ok(None),
        (LogicalPlan::Projection(projection), Keys::Of(keys)) => {
            let shown = projection.expr.iter().enumerate();
            let shown: Vec<(Expr, Expr)> = shown
                .map(|(i, expr)| {
                    let column = Column::from(projection.schema.qualified_field(i));
                    (expr.clone().unalias_nested().data, Expr::Column(column))
                })
                .collect();
            let mut found = Vec::new();
            for key in keys {
                found.extend(key.seen_as(|e| {
                    let same = shown.iter().find(|(from, _)| from == e);
                    same.map(|(_, to)| to.clone())
                })?);
            }
            found
        }
        (LogicalPlan::SubqueryAlias(alias), Keys::Of(keys)) => {
            let mut found = Vec::new();
            for key in keys {
                found.extend(key.seen_as(|e| match e {
                    Expr::Column(column) => {
                        let at = alias.input.schema().maybe_index_of_column(column)?;
                        Some(Expr::Column(Column::from(alias.schema.qualified_field(at))))
                    }
                    _ => None,
                })?);
            }
            found
        }
        (_, Keys::Of(keys)) => keys,
    };
    let mut usable = Vec::new();
    for key in found {
        let ty = key.result.get_type(plan.schema())?;
        if joins_as_it_groups(&ty) && !key.result.column_refs().is_empty() {
            usable.push(key);
        }
    }
    Ok((!usable.is_empty()).then_some(Keys::Of(usable)))
}

/// Types for which a join finds the values equal that a grouping puts together.
fn joins_as_it_groups(ty: &DataType) -> bool {
    ty.is_integer()
        || matches!(
            ty,
            DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Date32
                | DataType::Timestamp(..)
                | DataType::Decimal128(..)
        )
}

impl Key {
    fn of_row(expr: Expr) -> Self {
        Self {
            result: expr.clone(),
            row: expr,
        }
    }

    /// The key over results of a node above: `to` says what an expression is there.
    fn seen_as(self, to: impl Fn(&Expr) -> Option<Expr>) -> Result<Option<Self>> {
        let Self { result, row } = self;
        if let Some(result) = to(&result) {
            return Ok(Some(Self { result, row }));
        }
        let mut lost = false;
        let result = result.transform_down(|e| {
            Ok(match &e {
                Expr::Column(_) => match to(&e) {
                    Some(seen) => Transformed::yes(seen),
                    None => {
                        lost = true;
                        Transformed::no(e)
                    }
                },
                _ => Transformed::no(e),
            })
        })?;
        Ok((!lost).then_some(Self {
            result: result.data,
            row,
        }))
    }
}

impl KeyedCore {
    /// The key, for people.
    pub(super) fn shown(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(|k| k.result.to_string()).collect();
        keys.join(", ")
    }

    /// All results over the rows in a range.
    pub(super) fn whole(&self, range: Range) -> Result<LogicalPlan> {
        over(&self.plan, &mut |rows| cut(rows, range))
    }

    /// The keys that have rows in a range, each once.
    pub(super) fn changed(&self, range: Range) -> Result<LogicalPlan> {
        let rows = cut(bottom(&self.plan)?.clone(), range)?;
        let keys = self.keys.iter().enumerate();
        let keys = keys.map(|(i, key)| key.row.clone().alias(name(i)));
        LogicalPlanBuilder::from(rows)
            .project(keys.collect::<Vec<_>>())?
            .distinct()?
            .build()
    }

    /// The keys of stored results, each once.
    pub(super) fn known(&self, stored: LogicalPlan) -> Result<LogicalPlan> {
        let keys = self.keys.iter().enumerate();
        let keys = keys.map(|(i, key)| key.result.clone().alias(name(i)));
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
        let keys = self.keys.iter().map(|key| key.result.clone());
        matched(stored, changed, keys, how)
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
        over(&self.plan, &mut |rows| {
            let rows = match upto {
                Some(_) => cut(rows, range)?,
                None => rows,
            };
            let keys = self.keys.iter().map(|key| key.row.clone());
            matched(rows, changed, keys, JoinType::LeftSemi)
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

/// The plain rows that a part is made from.
fn bottom(plan: &LogicalPlan) -> Result<&LogicalPlan> {
    let mut plan = plan;
    while !plain_rows(plan) {
        plan = match plan.inputs()[..] {
            [input] => input,
            _ => return Err(Error::Internal("keys over several inputs".to_owned()).into()),
        };
    }
    Ok(plan)
}

/// The part over other rows.
fn over(
    plan: &LogicalPlan,
    rows: &mut dyn FnMut(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    if plain_rows(plan) {
        return rows(plan.clone());
    }
    let inputs = plan.inputs().into_iter().map(|input| over(input, rows));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    plan.with_new_exprs(plan.expressions(), inputs)
}

/// Rows whose key is among the changed ones, or is not.
fn matched(
    rows: LogicalPlan,
    changed: &LogicalPlan,
    keys: impl Iterator<Item = Expr>,
    how: JoinType,
) -> Result<LogicalPlan> {
    let relation = TableReference::bare(CHANGED);
    let changed = LogicalPlanBuilder::from(changed.clone())
        .alias(relation.clone())?
        .build()?;
    let on = keys.enumerate().map(|(i, key)| {
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
