//! Queries for one key of a materialized view, which are asked over and over with other parameters: planned
//! once, for everybody who means the same by them, and answered from what lookups have read.

use std::sync::Arc;

use catalog::{Oid, Strategy};
use datafusion::logical_expr::ScalarUDF;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Statement as Ast, TableFactor,
};

use super::{Outcome, Run, origins, query, rows};
use crate::engine::lookups::{Known, Question};
use crate::engine::scope::Scope;
use crate::error::Result;
use crate::semantics;
use crate::views::{Kept, Lookup};

/// Answers a query for one key of a view; nothing when it has to be planned.
pub(super) async fn ask(run: &Run, query: &Query) -> Result<Option<Outcome>> {
    let (scope, engine) = (&run.scope, &run.scope.engine);
    let caller = &scope.caller;
    if run.params.is_empty()
        || engine.blocks.is_off()
        || caller.as_of.is_some()
        || !may_be_lookup(query)
    {
        return Ok(None);
    }
    let question = Question::of(query, caller);
    let generation = scope.catalog.generation;
    let known = match engine.lookups.find(&question, generation) {
        Some(known) => known,
        None => {
            let known = match reads_states(scope, query) {
                false => None,
                // what is wrong with it is said by the planner
                true => Box::pin(understood(run, query)).await.unwrap_or_else(|e| {
                    tracing::debug!(error = %e, "not a query for one key");
                    None
                }),
            };
            let known = known.map(Arc::new);
            let found = known.clone();
            engine.lookups.learn(question, generation, found);
            known
        }
    };
    let Some(known) = known else {
        return Ok(None);
    };
    let read = (&engine.blocks, engine.reading());
    let answer = known
        .lookup
        .answer(&scope.head, &known.kept, &run.params, &known.schema, read);
    match answer.await {
        Ok(Some(batch)) => {
            for oid in &known.touched {
                scope.touch(*oid);
            }
            crate::metrics::looked_up();
            Ok(Some(rows::of_batch("SELECT", batch)))
        }
        Ok(None) => Ok(None),
        Err(e) => {
            tracing::warn!(error = ?e, "cannot look a key up: its query is planned instead");
            Ok(None)
        }
    }
}

/// Plans the query with its placeholders, and finds out whether it is for one key.
async fn understood(run: &Run, asked: &Query) -> Result<Option<Known>> {
    let scope = Arc::new(run.scope.apart());
    let state = scope.state()?;
    let plan = query::planned(&state, Ast::Query(Box::new(asked.clone()))).await?;
    let plan = semantics::apply(plan)?;
    let plan = state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})?;
    let base = scope.engine.reading();
    let ours = |function: &Arc<ScalarUDF>| {
        let known = base.scalar_functions().get(function.name());
        known.is_some_and(|known| Arc::ptr_eq(known, function))
    };
    let kept = |oid: Oid| {
        let relation = scope.catalog.relation_by_oid(oid)?;
        Kept::of(relation).ok().flatten()
    };
    let Some(lookup) = Lookup::of(&plan, &kept, &ours, &state)? else {
        return Ok(None);
    };
    let Some(kept) = kept(lookup.view()) else {
        return Ok(None);
    };
    let schema = query::output_schema(asked, plan.schema().as_arrow());
    Ok(Some(Known {
        lookup,
        kept,
        schema: origins::noted(&schema, &plan, &scope),
        touched: scope.touched_oids(),
    }))
}

/// `SELECT columns FROM one WHERE …`.
fn may_be_lookup(query: &Query) -> bool {
    let SetExpr::Select(select) = &*query.body else {
        return false;
    };
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty();
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    plain
        && ungrouped
        && select.distinct.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && select.selection.is_some()
        && relation(select).is_some()
        && select.projection.iter().all(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => column(expr),
            SelectItem::Wildcard(_) => true,
            _ => false,
        })
}

fn column(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Cast { expr, .. } => column(expr),
        Expr::Nested(expr) => column(expr),
        _ => false,
    }
}

/// The last part of the one relation's name.
fn relation(select: &Select) -> Option<String> {
    let [from] = select.from.as_slice() else {
        return None;
    };
    match &from.relation {
        TableFactor::Table {
            name, args: None, ..
        } if from.joins.is_empty() => {
            let last = name.0.last()?.as_ident()?;
            Some(crate::dialect::words::fold(last))
        }
        _ => None,
    }
}

/// A view of that name keeps states by key.
fn reads_states(scope: &Scope, query: &Query) -> bool {
    let SetExpr::Select(select) = &*query.body else {
        return false;
    };
    let Some(name) = relation(select) else {
        return false;
    };
    let named = scope.catalog.relations.iter().filter(|r| r.name == name);
    named
        .filter_map(|r| r.materialized.as_ref())
        .any(|view| view.strategy == Strategy::Agg)
}
