//! Lineage through plan nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::{JoinType, TableReference};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Join, LogicalPlan, RecursiveQuery, SubqueryAlias, TableScan, Unnest,
    Window,
};

use super::{Flow, Scope, Sources, Tracer, union};

/// Rounds a recursive query is followed; sets only grow, so it settles long before.
const MAX_ROUNDS: usize = 100;

impl Tracer {
    /// What reaches the outputs of a plan. Deep plans grow the stack instead of overflowing it.
    #[recursive::recursive]
    pub(super) fn plan(&mut self, plan: &LogicalPlan) -> Flow {
        let mut flow = match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(projection) => {
                self.computed(&projection.input, &projection.expr)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(&union.inputs),
            LogicalPlan::Distinct(distinct) => self.distinct(distinct),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::RecursiveQuery(query) => self.recursive_query(query),
            LogicalPlan::SubqueryAlias(alias) => match alias.alias {
                TableReference::Full { .. } => view(alias),
                TableReference::Bare { .. } | TableReference::Partial { .. } => {
                    self.plan(&alias.input)
                }
            },
            LogicalPlan::Subquery(subquery) => self.plan(&subquery.subquery),
            LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Repartition(_) => self.row_choice(plan),
            LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => self.everything(plan),
        };
        let width = plan.schema().fields().len();
        if flow.columns.len() != width {
            let all = union(&flow.columns);
            flow.columns = vec![all; width];
        }
        flow
    }

    fn scan(&mut self, scan: &TableScan) -> Flow {
        if let TableReference::Bare { table } = &scan.table_name
            && let Some((_, flow)) = self.working.iter().rev().find(|(n, _)| **n == **table)
        {
            return flow.clone();
        }
        let fields = scan.projected_schema.fields().iter();
        let source = |name: &String| (scan.table_name.clone(), name.clone());
        let mut flow = Flow {
            columns: fields.map(|f| Sources::from([source(f.name())])).collect(),
            ..Flow::default()
        };
        flow.tables.insert(scan.table_name.clone());
        // a filter pushed into the scan may use columns that it does not give
        let every = scan.source.schema();
        for column in scan.filters.iter().flat_map(Expr::column_refs) {
            if every.column_with_name(&column.name).is_some() {
                flow.indirect.insert(source(&column.name));
            }
        }
        flow
    }

    /// A node whose outputs are expressions over one input.
    fn computed(&mut self, input: &LogicalPlan, exprs: &[Expr]) -> Flow {
        let mut flow = self.plan(input);
        let scope = Scope::new(input.schema(), &std::mem::take(&mut flow.columns));
        flow.columns = self.each(exprs, &scope, &mut flow);
        flow
    }

    fn each(&mut self, exprs: &[Expr], scope: &Scope, flow: &mut Flow) -> Vec<Sources> {
        exprs.iter().map(|e| self.value(e, scope, flow)).collect()
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Flow {
        let groups: Vec<Expr> = match grouping_set_to_exprlist(&aggregate.group_expr) {
            Ok(groups) => groups.into_iter().cloned().collect(),
            Err(_) => aggregate.group_expr.clone(),
        };
        let mut flow = self.plan(&aggregate.input);
        let scope = Scope::new(aggregate.input.schema(), &std::mem::take(&mut flow.columns));
        let mut columns = self.each(&groups, &scope, &mut flow);
        let keys = union(&columns);
        let values = self.each(&aggregate.aggr_expr, &scope, &mut flow);
        if aggregate.schema.fields().len() == columns.len() + values.len() + 1 {
            // the number of the grouping set
            columns.push(keys.clone());
        }
        columns.extend(values);
        flow.columns = columns;
        flow.indirect.extend(keys);
        flow
    }

    fn window(&mut self, window: &Window) -> Flow {
        let mut flow = self.plan(&window.input);
        let scope = Scope::new(window.input.schema(), &flow.columns);
        let computed = self.each(&window.window_expr, &scope, &mut flow);
        flow.columns.extend(computed);
        flow
    }

    fn join(&mut self, join: &Join) -> Flow {
        let left = self.plan(&join.left);
        // a lateral right side sees the left one
        self.outer
            .push(Scope::new(join.left.schema(), &left.columns));
        let right = self.plan(&join.right);
        self.outer.pop();

        let both: Vec<Sources> = [left.columns.as_slice(), right.columns.as_slice()].concat();
        let joined = join.left.schema().join(join.right.schema());
        let mut flow = Flow::default();
        for side in [&left, &right] {
            flow.indirect.extend(side.indirect.iter().cloned());
            flow.tables.extend(side.tables.iter().cloned());
        }
        let mut conditions: Vec<&Expr> = join.on.iter().flat_map(|(l, r)| [l, r]).collect();
        conditions.extend(&join.filter);
        let mut keys = Sources::new();
        match joined {
            Ok(schema) => {
                let scope = Scope::new(&schema, &both);
                for condition in conditions {
                    keys.extend(self.value(condition, &scope, &mut flow));
                }
            }
            // both sides have a column of one name: any of them may be meant
            Err(_) => keys = union(&both),
        }
        flow.indirect.extend(keys.iter().cloned());
        flow.columns = match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => left.columns,
            JoinType::RightSemi | JoinType::RightAnti => right.columns,
            JoinType::LeftMark => left.columns.into_iter().chain([keys]).collect(),
            JoinType::RightMark => right.columns.into_iter().chain([keys]).collect(),
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => both,
        };
        flow
    }

    fn union(&mut self, inputs: &[Arc<LogicalPlan>]) -> Flow {
        let mut flow = Flow::default();
        for input in inputs {
            let one = self.plan(input);
            merge(&mut flow, one);
        }
        flow
    }

    fn distinct(&mut self, distinct: &Distinct) -> Flow {
        match distinct {
            Distinct::All(input) => {
                let mut flow = self.plan(input);
                flow.indirect.extend(union(&flow.columns));
                flow
            }
            Distinct::On(on) => {
                let mut flow = self.plan(&on.input);
                let scope = Scope::new(on.input.schema(), &std::mem::take(&mut flow.columns));
                let sorts = on.sort_expr.iter().flatten().map(|s| &s.expr);
                let deciding: Vec<Expr> = on.on_expr.iter().chain(sorts).cloned().collect();
                let deciding = self.each(&deciding, &scope, &mut flow);
                flow.indirect.extend(union(&deciding));
                flow.columns = self.each(&on.select_expr, &scope, &mut flow);
                flow
            }
        }
    }

    fn unnest(&mut self, unnest: &Unnest) -> Flow {
        let mut flow = self.plan(&unnest.input);
        // how many rows an input row becomes depends on its lists
        for (list, _) in &unnest.list_type_columns {
            let sources = flow.columns.get(*list).cloned().unwrap_or_default();
            flow.indirect.extend(sources);
        }
        let below = std::mem::take(&mut flow.columns);
        let all = union(&below);
        let sources = |i: &usize| below.get(*i).cloned().unwrap_or_else(|| all.clone());
        flow.columns = unnest.dependency_indices.iter().map(sources).collect();
        flow
    }

    fn recursive_query(&mut self, query: &RecursiveQuery) -> Flow {
        let mut flow = self.plan(&query.static_term);
        for _ in 0..MAX_ROUNDS {
            self.working.push((query.name.clone(), flow.clone()));
            let step = self.plan(&query.recursive_term);
            self.working.pop();
            let before = flow.clone();
            merge(&mut flow, step);
            if flow == before {
                break;
            }
        }
        if query.is_distinct {
            flow.indirect.extend(union(&flow.columns));
        }
        flow
    }

    /// A node that passes columns on and only chooses or orders rows.
    fn row_choice(&mut self, plan: &LogicalPlan) -> Flow {
        let mut flow = Flow::default();
        for input in plan.inputs() {
            let one = self.plan(input);
            let scope = Scope::new(input.schema(), &one.columns);
            merge(&mut flow, one);
            for expr in plan.expressions() {
                let sources = self.value(&expr, &scope, &mut flow);
                flow.indirect.extend(sources);
            }
        }
        flow
    }

    /// A node whose flow is not known: all that goes in reaches all that comes out.
    fn everything(&mut self, plan: &LogicalPlan) -> Flow {
        let mut flow = Flow::default();
        let mut reached = Sources::new();
        let nothing = plan.inputs().is_empty();
        for input in plan.inputs() {
            let one = self.plan(input);
            let scope = Scope::new(input.schema(), &one.columns);
            reached.extend(one.all());
            flow.indirect.extend(one.all());
            flow.tables.extend(one.tables);
            for expr in plan.expressions() {
                reached.extend(self.value(&expr, &scope, &mut flow));
            }
        }
        if nothing {
            let scope = Scope::new(&datafusion::common::DFSchema::empty(), &[]);
            for expr in plan.expressions() {
                reached.extend(self.value(&expr, &scope, &mut flow));
            }
        }
        flow.columns = vec![reached; plan.schema().fields().len()];
        flow
    }
}

/// Adds `one` to `flow` column by column.
fn merge(flow: &mut Flow, one: Flow) {
    if flow.columns.len() < one.columns.len() {
        flow.columns.resize(one.columns.len(), Sources::new());
    }
    for (sources, more) in flow.columns.iter_mut().zip(one.columns) {
        sources.extend(more);
    }
    flow.indirect.extend(one.indirect);
    flow.tables.extend(one.tables);
}

/// A view reaches as a table does: what it is made of is its own lineage.
fn view(alias: &SubqueryAlias) -> Flow {
    let fields = alias.schema.fields().iter();
    Flow {
        columns: fields
            .map(|f| Sources::from([(alias.alias.clone(), f.name().clone())]))
            .collect(),
        indirect: Sources::new(),
        tables: BTreeSet::from([alias.alias.clone()]),
    }
}
