//! By which expressions the results of a plan can be told apart, and the rows that they are made from.
//!
//! A key is right when the results of some of its values are made of exactly the rows that have those
//! values. Windows, groupings and joins each keep what they have in common with the keys below them: a
//! join's rows have the key that its sides are equal by, an outer join's that of the side it keeps.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Operator, Window,
};

use crate::views::core::{has_subquery, plain_rows, streams};

/// One column of the key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Over the results; any of them, as all are equal.
    pub(super) results: Vec<Expr>,
    /// Over the rows of each leaf, from left to right; nothing where a leaf is taken whole.
    pub(super) rows: Vec<Option<Expr>>,
}

/// What the results of a plan can be told apart by.
struct Keys {
    /// These.
    of: Vec<Key>,
    /// And any expression over columns of one leaf, each result being made from one of its rows.
    free: Option<Free>,
}

struct Free {
    schema: DFSchemaRef,
    at: usize,
    leaves: usize,
}

/// What a part of a query is made from: rows of streams, or of other tables.
pub(super) fn leaf(plan: &LogicalPlan) -> Result<bool> {
    Ok(plain_rows(plan) || !streams(plan)? && stands_alone(plan)?)
}

/// The keys of a plan; none when there is no way to compute some of its results alone.
pub(super) fn keys(plan: &LogicalPlan) -> Result<Vec<Key>> {
    let found = below(plan, &[])?.map(|keys| keys.of);
    Ok(found.unwrap_or_default())
}

/// No two columns differ by their relation alone: plans of physical operators know only names, and the
/// filters that they make while they run end up at the wrong one.
pub(super) fn named_apart(schema: &DFSchema) -> bool {
    let names: BTreeSet<&String> = schema.fields().iter().map(|f| f.name()).collect();
    names.len() == schema.fields().len()
}

/// Nothing in the plan looks at a query around it.
fn stands_alone(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_));
        for expr in node.expressions() {
            found |= expr.exists(|e| Ok(matches!(e, Expr::OuterReferenceColumn(..))))?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(!found)
}

/// `wanted` are conditions that hold for the results that count.
fn below(plan: &LogicalPlan, wanted: &[&Expr]) -> Result<Option<Keys>> {
    if leaf(plan)? {
        if !named_apart(plan.schema()) {
            return Ok(None);
        }
        return Ok(Some(Keys {
            of: Vec::new(),
            free: Some(Free {
                schema: Arc::clone(plan.schema()),
                at: 0,
                leaves: 1,
            }),
        }));
    }
    if has_subquery(plan)? {
        return Ok(None);
    }
    let found = match plan {
        LogicalPlan::Join(join) => joined(join, wanted)?,
        LogicalPlan::Filter(filter) => {
            let mut wanted = wanted.to_vec();
            wanted.extend(split_conjunction(&filter.predicate));
            below(&filter.input, &wanted)?
        }
        LogicalPlan::Window(window) => match below(&window.input, &[])? {
            Some(keys) => windowed(window, &keys),
            None => None,
        },
        LogicalPlan::Aggregate(aggregate) => match below(&aggregate.input, &[])? {
            Some(keys) => grouped(aggregate, &keys),
            None => None,
        },
        LogicalPlan::Projection(projection) => match below(&projection.input, &[])? {
            Some(keys) => {
                let shown: Vec<(Expr, Expr)> = projection
                    .expr
                    .iter()
                    .enumerate()
                    .map(|(i, expr)| {
                        let column = Column::from(projection.schema.qualified_field(i));
                        (expr.clone().unalias_nested().data, Expr::Column(column))
                    })
                    .collect();
                Some(keys.seen_as(|e| {
                    let same = shown.iter().filter(|(from, _)| from == e);
                    Ok(same.map(|(_, to)| to.clone()).collect())
                })?)
            }
            None => None,
        },
        LogicalPlan::SubqueryAlias(alias) => match below(&alias.input, &[])? {
            Some(keys) => Some(keys.seen_as(|e| {
                let Expr::Column(column) = e else {
                    return Ok(Vec::new());
                };
                let at = alias.input.schema().maybe_index_of_column(column);
                let to = at.map(|at| Expr::Column(Column::from(alias.schema.qualified_field(at))));
                Ok(to.into_iter().collect())
            })?),
            None => None,
        },
        _ => None,
    };
    let Some(mut found) = found else {
        return Ok(None);
    };
    let mut usable = Vec::new();
    for key in found.of {
        usable.extend(key.usable(plan.schema())?);
    }
    found.of = usable;
    Ok(Some(found))
}

fn windowed(window: &Window, keys: &Keys) -> Option<Keys> {
    let mut common: Option<Vec<Expr>> = None;
    for expr in &window.window_expr {
        let Expr::WindowFunction(f) = expr.clone().unalias_nested().data else {
            return None;
        };
        let of = f.params.partition_by.clone();
        common = Some(match common {
            None => of,
            Some(before) => before.into_iter().filter(|e| of.contains(e)).collect(),
        });
    }
    let common = common.unwrap_or_default();
    let of = common.iter().filter_map(|e| keys.by(e)).collect();
    Some(Keys { of, free: None })
}

fn grouped(aggregate: &Aggregate, keys: &Keys) -> Option<Keys> {
    let mut of = Vec::new();
    for (i, group) in aggregate.group_expr.iter().enumerate() {
        let group = group.clone().unalias_nested().data;
        if matches!(group, Expr::GroupingSet(_)) {
            return None;
        }
        let result = Expr::Column(Column::from(aggregate.schema.qualified_field(i)));
        of.extend(keys.by(&group).map(|key| Key {
            results: vec![result],
            ..key
        }));
    }
    Some(Keys { of, free: None })
}

fn joined(join: &Join, wanted: &[&Expr]) -> Result<Option<Keys>> {
    let mut equal: Vec<(&Expr, &Expr)> = join.on.iter().map(|(l, r)| (l, r)).collect();
    let conditions = join.filter.iter().flat_map(split_conjunction);
    let mut conditions: Vec<&Expr> = conditions.collect();
    let inner = join.join_type == JoinType::Inner;
    if inner {
        // what is asked of its rows holds for those of both sides
        conditions.extend(wanted);
    }
    let passed: &[&Expr] = if inner { &conditions } else { &[] };
    let (Some(left), Some(right)) = (below(&join.left, passed)?, below(&join.right, passed)?)
    else {
        return Ok(None);
    };
    let of_side = |e: &Expr, schema: &DFSchema| {
        let columns = e.column_refs();
        !columns.is_empty() && columns.iter().all(|c| schema.has_column(c))
    };
    for condition in &conditions {
        let Expr::BinaryExpr(BinaryExpr {
            left: a,
            op,
            right: b,
        }) = condition
        else {
            continue;
        };
        if !matches!(op, Operator::Eq | Operator::IsNotDistinctFrom) {
            continue;
        }
        let (l, r) = (join.left.schema(), join.right.schema());
        if of_side(a, l) && of_side(b, r) {
            equal.push((a, b));
        } else if of_side(b, l) && of_side(a, r) {
            equal.push((b, a));
        }
    }
    let mut of = Vec::new();
    for (l, r) in equal {
        if l.get_type(join.left.schema())? != r.get_type(join.right.schema())? {
            continue;
        }
        // a NULL among the others decides on all rows
        let asked = wanted.iter().any(|e| is_not_null_of(e, l));
        let without_null = (asked || never_null(l, &join.left)?) && never_null(r, &join.right)?;
        if join.null_aware && !without_null {
            continue;
        }
        let (Some(l), Some(r)) = (left.by(l), right.by(r)) else {
            continue;
        };
        let results = match join.join_type {
            JoinType::Inner => l.results.into_iter().chain(r.results).collect(),
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                l.results
            }
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                r.results
            }
            JoinType::Full => {
                let pairs = l.results.iter().flat_map(|l| {
                    let both = |r: &Expr| [[l.clone(), r.clone()], [r.clone(), l.clone()]];
                    r.results.iter().flat_map(both)
                });
                pairs.map(|pair| coalesce(pair.to_vec())).collect()
            }
        };
        let rows = l.rows.into_iter().chain(r.rows).collect();
        of.push(Key { results, rows });
    }
    let free = free_of(
        join,
        left.free,
        right.free,
        (leaves(&join.left)?, leaves(&join.right)?),
    )?;
    Ok(Some(Keys { of, free }))
}

/// The columns of a stream stay free when the rows it is joined with are no stream's, and none is
/// without it.
fn free_of(
    join: &Join,
    left: Option<Free>,
    right: Option<Free>,
    (lefts, rights): (usize, usize),
) -> Result<Option<Free>> {
    let leaves = lefts + rights;
    let left_streams = streams(&join.left)?;
    if left_streams == streams(&join.right)? {
        return Ok(None);
    }
    let kept = match (left_streams, join.join_type) {
        (
            true,
            JoinType::Inner
            | JoinType::Left
            | JoinType::LeftSemi
            | JoinType::LeftAnti
            | JoinType::LeftMark,
        ) => left.map(|free| Free { leaves, ..free }),
        (
            false,
            JoinType::Inner
            | JoinType::Right
            | JoinType::RightSemi
            | JoinType::RightAnti
            | JoinType::RightMark,
        ) => right.map(|free| Free {
            at: free.at + lefts,
            leaves,
            ..free
        }),
        _ => None,
    };
    Ok(kept)
}

/// How many leaves lie below.
fn leaves(plan: &LogicalPlan) -> Result<usize> {
    if leaf(plan)? {
        return Ok(1);
    }
    let mut found = 0;
    for input in plan.inputs() {
        found += leaves(input)?;
    }
    Ok(found)
}

fn is_not_null_of(condition: &Expr, expr: &Expr) -> bool {
    matches!(condition, Expr::IsNotNull(of) if of.as_ref() == expr)
}

/// No row of the plan has NULL there: by its schema, or because a filter says so.
fn never_null(expr: &Expr, plan: &LogicalPlan) -> Result<bool> {
    if !expr.nullable(plan.schema())? {
        return Ok(true);
    }
    Ok(match plan {
        LogicalPlan::Filter(filter) => {
            let said = split_conjunction(&filter.predicate);
            said.into_iter().any(|e| is_not_null_of(e, expr)) || never_null(expr, &filter.input)?
        }
        LogicalPlan::Projection(projection) => {
            let Expr::Column(column) = expr else {
                return Ok(false);
            };
            let at = projection.schema.maybe_index_of_column(column);
            match at.and_then(|at| projection.expr.get(at)) {
                Some(from) => never_null(&from.clone().unalias_nested().data, &projection.input)?,
                None => false,
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Expr::Column(column) = expr else {
                return Ok(false);
            };
            match alias.schema.maybe_index_of_column(column) {
                Some(at) => {
                    let from = Column::from(alias.input.schema().qualified_field(at));
                    never_null(&Expr::Column(from), &alias.input)?
                }
                None => false,
            }
        }
        _ => false,
    })
}

impl Keys {
    /// The key that an expression over the results is, if it is one.
    fn by(&self, expr: &Expr) -> Option<Key> {
        if let Some(key) = self.of.iter().find(|key| key.results.contains(expr)) {
            return Some(key.clone());
        }
        let free = self.free.as_ref()?;
        let columns = expr.column_refs();
        if columns.is_empty() || !columns.iter().all(|c| free.schema.has_column(c)) {
            return None;
        }
        let row = |i| (i == free.at).then(|| expr.clone());
        Some(Key {
            results: vec![expr.clone()],
            rows: (0..free.leaves).map(row).collect(),
        })
    }

    /// The keys over results of a node above: `to` says what an expression is there.
    fn seen_as(self, to: impl Fn(&Expr) -> Result<Vec<Expr>>) -> Result<Self> {
        let mut of = Vec::new();
        for key in self.of {
            let mut results = Vec::new();
            for result in &key.results {
                results.extend(renamed(result, &to)?);
            }
            if !results.is_empty() {
                of.push(Key { results, ..key });
            }
        }
        Ok(Self { of, free: None })
    }
}

/// An expression as a node above sees it, in every way.
fn renamed(expr: &Expr, to: &impl Fn(&Expr) -> Result<Vec<Expr>>) -> Result<Vec<Expr>> {
    let same = to(expr)?;
    if !same.is_empty() {
        return Ok(same);
    }
    let mut lost = false;
    let seen = expr.clone().transform_down(|e| {
        Ok(match &e {
            Expr::Column(_) => match to(&e)?.into_iter().next() {
                Some(seen) => Transformed::yes(seen),
                None => {
                    lost = true;
                    Transformed::no(e)
                }
            },
            _ => Transformed::no(e),
        })
    })?;
    Ok(match lost {
        true => Vec::new(),
        false => vec![seen.data],
    })
}

impl Key {
    /// The key where rows can be looked up by it.
    fn usable(mut self, results: &DFSchema) -> Result<Option<Self>> {
        let mut kept = Vec::new();
        for result in self.results {
            let usable =
                !result.column_refs().is_empty() && joins_as_it_groups(&result.get_type(results)?);
            if usable {
                kept.push(result);
            }
        }
        self.results = kept;
        Ok((!self.results.is_empty()).then_some(self))
    }
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
