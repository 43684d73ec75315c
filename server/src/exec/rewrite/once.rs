//! Queries inside a change that two plans may answer differently, such as `LIMIT` or a rank among equals:
//! a row would be in two parts of the new state, or in none. They are asked once, before, at the
//! statement's cut, and all parts read the rows that were kept.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use catalog::RelationKind;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Distinct, Expr as PlanExpr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, SelectItem, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use super::source_factor;
use crate::dialect::time_travel::TableVersion;
use crate::dialect::words::parts;
use crate::engine::scan::WeirTable;
use crate::engine::scope::Scope;
use crate::error::{Error, Result};
use crate::exec::{Run, query, rows};

/// Providers by schema and name.
pub(in crate::exec) type Sources = HashMap<(String, String), Arc<dyn TableProvider>>;

/// Bytes that the kept rows of one query may take.
const LIMIT: usize = 512 << 20;

/// Aggregates whose value depends on the order rows come in.
const ORDERED: [&str; 5] = [
    "array_agg",
    "string_agg",
    "first_value",
    "last_value",
    "nth_value",
];

/// Asks what has to be asked once, and puts the kept rows in its place.
///
/// # Errors
/// Those of the queries; 53200 when the rows of one do not fit in memory.
pub(in crate::exec) async fn ask(
    run: &Run,
    from: &mut Vec<TableWithJoins>,
    condition: &mut Option<Expr>,
) -> Result<Sources> {
    let scope = &run.scope;
    let mut found = Vec::new();
    each(scope, from, condition, |query| {
        found.push(query()?);
        Ok(None)
    })?;
    let mut sources = Sources::new();
    let mut names = Vec::new();
    for (at, query) in found.into_iter().enumerate() {
        // one that cannot be planned alone looks at the row it is asked for, or fails again below
        let planned = query::plan(scope, query, &run.params).await.ok();
        let name = match planned {
            Some((state, plan)) if by_chance(&plan)? || reads_no_table(&plan)? => {
                let name = format!("\u{2}asked {at}");
                let rows = collected(run, &state, &plan).await?;
                sources.insert((scope.caller.schema.clone(), name.clone()), rows);
                Some(name)
            }
            _ => None,
        };
        names.push(name);
    }
    let mut names = names.into_iter();
    each(scope, from, condition, |_| Ok(names.next().flatten()))?;
    Ok(sources)
}

/// Runs a plan to its end and keeps its rows as a table.
///
/// # Errors
/// 53200 when they do not fit in memory.
pub(in crate::exec) async fn collected(
    run: &Run,
    state: &SessionState,
    plan: &LogicalPlan,
) -> Result<Arc<dyn TableProvider>> {
    let schema = Arc::new(plan.schema().as_arrow().clone());
    let batches = rows::collect(run, state, plan, LIMIT).await?;
    let batches = batches
        .into_iter()
        .map(|b| {
            Ok(RecordBatch::try_new(
                Arc::clone(&schema),
                b.columns().to_vec(),
            )?)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

/// True when asking the plan again may give other rows over the same tables.
pub(super) fn by_chance(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= match node {
            LogicalPlan::Limit(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Distinct(Distinct::On(_)) => true,
            other => other
                .expressions()
                .iter()
                .any(|e| e.is_volatile() || depends_on_order(e)),
        };
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn depends_on_order(expr: &PlanExpr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let of_order = |e: &PlanExpr| match e {
        PlanExpr::AggregateFunction(f) => ORDERED.contains(&f.func.name()),
        _ => false,
    };
    expr.exists(|e| Ok(of_order(e))).unwrap_or(true)
}

/// True when it reads something that is no table of the lake, such as the catalog.
fn reads_no_table(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= WeirTable::behind(&scan.source).is_none();
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Goes through the outermost queries, and the tables in FROM that may be views, in the order they are
/// written. `give` may ask for the query, and names the source that takes its place.
fn each(
    scope: &Scope,
    from: &mut Vec<TableWithJoins>,
    condition: &mut Option<Expr>,
    give: impl FnMut(&dyn Fn() -> Result<Query>) -> Result<Option<String>>,
) -> Result<()> {
    let mut outermost = Outermost {
        scope,
        give,
        depth: 0,
    };
    let mut gone = VisitMut::visit(from, &mut outermost);
    if gone.is_continue() {
        gone = VisitMut::visit(condition, &mut outermost);
    }
    match gone {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct Outermost<'a, F> {
    scope: &'a Scope,
    give: F,
    depth: usize,
}

impl<F> VisitorMut for Outermost<'_, F>
where
    F: FnMut(&dyn Fn() -> Result<Query>) -> Result<Option<String>>,
{
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        if self.depth > 1 {
            return ControlFlow::Continue(());
        }
        let named = (self.give)(&|| Ok(query.clone()));
        let put = named.and_then(|name| match name {
            None => Ok(()),
            Some(name) => {
                *query = everything(source_factor(&name, Ident::new("asked")))?;
                Ok(())
            }
        });
        or_break(put)
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth = self.depth.saturating_sub(1);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let Some(alias) = (self.depth == 0)
            .then(|| may_be_view(self.scope, factor))
            .flatten()
        else {
            return ControlFlow::Continue(());
        };
        let named = (self.give)(&|| {
            everything(TableWithJoins {
                relation: factor.clone(),
                joins: Vec::new(),
            })
        });
        or_break(named.map(|name| {
            if let Some(name) = name {
                *factor = source_factor(&name, alias).relation;
            }
        }))
    }
}

fn or_break(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(e) => ControlFlow::Break(e),
    }
}

fn everything(from: TableWithJoins) -> Result<Query> {
    let all = SelectItem::Wildcard(Default::default());
    query::select(vec![all], vec![from], None)
}

/// What a table in FROM goes by, unless it is an ordinary or streaming one.
fn may_be_view(scope: &Scope, factor: &TableFactor) -> Option<Ident> {
    let TableFactor::Table {
        name,
        alias,
        args: None,
        ..
    } = factor
    else {
        return None;
    };
    let (schema, written) = scope.split_name(&parts(name)).ok()?;
    let (bare, _) = TableVersion::of(&written);
    let relation = scope.catalog.relation(&schema, bare);
    let table = |kind| matches!(kind, RelationKind::Table | RelationKind::StreamingTable);
    if relation.is_some_and(|r| table(r.kind)) {
        return None;
    }
    match alias {
        Some(alias) => Some(alias.name.clone()),
        None => name.0.last().and_then(|part| part.as_ident()).cloned(),
    }
}
