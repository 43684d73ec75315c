//! Lists of a row beside the row: `FROM t, unnest(t.list)`, with or without `LATERAL`, and what the dialect
//! makes of `jsonb_array_elements` and its like.
//!
//! The planner leaves a join whose right side looks into its left one, and has no way to run it. Here the
//! lists become columns of the left side, which are unnested beside the others.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{NullHandling, TableReference, UnnestOptions};
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, Unnest, lit,
};

/// Rewrites such joins; everything else stays as it is.
pub(super) fn apply(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match &node {
        LogicalPlan::Join(join) => match beside(join)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(node)),
        },
        _ => Ok(Transformed::no(node)),
    })
    .data()
}

/// `left JOIN unnest(lists of left) AS alias`, as one plan over the left side.
fn beside(join: &Join) -> Result<Option<LogicalPlan>> {
    let Some((alias, named, renamed, unnest, lists)) = unnested(&join.right) else {
        return Ok(None);
    };
    let looks_left = lists.expr.iter().any(Expr::contains_outer);
    let condition = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
    let condition: Vec<Expr> = condition.chain(join.filter.clone()).collect();
    let always = condition.iter().all(|c| *c == lit(true));
    let outer = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left if always => true,
        _ => return Ok(None),
    };
    if !looks_left {
        return Ok(None);
    }
    let schema = join.left.schema();
    let kept = || schema.columns().into_iter().map(Expr::Column);
    let mut made = Vec::with_capacity(lists.expr.len());
    for list in &lists.expr {
        let Some(list) = inside(list, join)? else {
            return Ok(None);
        };
        made.push(list);
    }
    // an outer join has a row for a list without elements
    let empty = match outer {
        true => NullHandling::PreserveAndExpandEmpty,
        false => NullHandling::Drop,
    };
    let options = UnnestOptions::clone(&unnest.options).with_null_handling(empty);
    let mut plan = LogicalPlanBuilder::new_from_arc(Arc::clone(&join.left))
        .project(kept().chain(made))?
        .unnest_columns_with_options(unnest.exec_columns.clone(), options)?;
    if let Some(renamed) = renamed {
        plan = plan.project(kept().chain(renamed.expr.iter().cloned()))?;
    }
    let shown = named.expr.iter().zip(named.schema.fields());
    let shown = shown.map(|(expr, field)| {
        let expr = expr.clone().unalias();
        expr.alias_qualified(Some(alias.clone()), field.name())
    });
    plan = plan.project(kept().chain(shown))?;
    match conjunction(condition) {
        Some(condition) if !always => plan.filter(condition)?.build().map(Some),
        _ => plan.build().map(Some),
    }
}

type Unnested<'a> = (
    &'a TableReference,
    &'a Projection,
    Option<&'a Projection>,
    &'a Unnest,
    &'a Projection,
);

/// The parts of `unnest(lists) AS alias (names)` over nothing.
fn unnested(plan: &LogicalPlan) -> Option<Unnested<'_>> {
    let LogicalPlan::SubqueryAlias(alias) = plan else {
        return None;
    };
    let named = match &*alias.input {
        LogicalPlan::Subquery(lateral) => &lateral.subquery,
        _ => &alias.input,
    };
    let LogicalPlan::Projection(named) = &**named else {
        return None;
    };
    let (renamed, unnest) = match &*named.input {
        LogicalPlan::Projection(renamed) => (Some(renamed), &renamed.input),
        _ => (None, &named.input),
    };
    let LogicalPlan::Unnest(unnest) = &**unnest else {
        return None;
    };
    let LogicalPlan::Projection(lists) = &*unnest.input else {
        return None;
    };
    match &*lists.input {
        LogicalPlan::EmptyRelation(one) if one.produce_one_row => {
            Some((&alias.alias, named, renamed, unnest, lists))
        }
        _ => None,
    }
}

/// An expression with the columns of the left side for references to it; nothing when it looks further.
fn inside(expr: &Expr, join: &Join) -> Result<Option<Expr>> {
    let schema = join.left.schema();
    let name = expr.schema_name().to_string();
    let bound = expr.clone().transform_up(|e| match e {
        Expr::OuterReferenceColumn(_, column) if schema.has_column(&column) => {
            Ok(Transformed::yes(Expr::Column(column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    match bound.data.contains_outer() {
        true => Ok(None),
        // the unnest asks for it by the name that it had
        false => Ok(Some(bound.data.unalias().alias(name))),
    }
}
