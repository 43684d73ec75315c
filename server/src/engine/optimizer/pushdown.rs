//! Filters that do not get lost between columns of one name.
//!
//! DataFusion 55 carries a filter from one operator's columns to the next one's by *name*. Where two
//! columns have one name, as after a join of a table with itself, the filter reaches the wrong column and
//! rows are lost (apache/datafusion#25296). So the rule runs over a plan with fences: no filter passes an
//! operator whose columns cannot be told apart by name. What stays above is still evaluated there, and
//! conditions that the logical optimizer has sorted by table are in the scans already.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, internal_err,
};

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;
type Plan = Arc<dyn ExecutionPlan>;

/// A rule as it should run: the ones that push filters down with fences, all others as they are.
pub(super) fn fenced(rule: Rule) -> Rule {
    let pushes = [
        FilterPushdown::new(),
        FilterPushdown::new_post_optimization(),
    ];
    match pushes.iter().any(|p| p.name() == rule.name()) {
        true => Arc::new(Fenced(rule)),
        false => rule,
    }
}

#[derive(Debug)]
struct Fenced(Rule);

impl PhysicalOptimizerRule for Fenced {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        if !plan.exists(|node| Ok(ambiguous(node.as_ref())))? {
            return self.0.optimize(plan, config);
        }
        let fenced = plan.transform_up(|node| match ambiguous(node.as_ref()) {
            true => Ok(Transformed::yes(Arc::new(Fence(node)) as _)),
            false => Ok(Transformed::no(node)),
        })?;
        let pushed = self.0.optimize(fenced.data, config)?;
        let opened = pushed.transform_up(|node| match node.downcast_ref::<Fence>() {
            Some(fence) => Ok(Transformed::yes(Arc::clone(&fence.0))),
            None => Ok(Transformed::no(node)),
        })?;
        Ok(opened.data)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// True where a name does not say which column a filter from above means, or means below.
fn ambiguous(plan: &dyn ExecutionPlan) -> bool {
    let children = plan.children();
    repeats(&plan.schema())
        || children.iter().any(|child| repeats(&child.schema()))
        || children.len() > 1 && plan.name().contains("Union") && renames(plan)
        || plan
            .downcast_ref::<AggregateExec>()
            .is_some_and(hides_a_column)
}

/// Two columns of one name.
fn repeats(schema: &Schema) -> bool {
    let mut seen = HashSet::new();
    !schema
        .fields()
        .iter()
        .all(|field| seen.insert(field.name()))
}

/// A union whose inputs call their columns differently.
fn renames(plan: &dyn ExecutionPlan) -> bool {
    let schema = plan.schema();
    plan.children().iter().any(|child| {
        let theirs = child.schema();
        let names = theirs.fields().iter().map(|field| field.name());
        !names.eq(schema.fields().iter().map(|field| field.name()))
    })
}

/// A group by an expression that has the name of a column of the input.
fn hides_a_column(aggregate: &AggregateExec) -> bool {
    let input = aggregate.input().schema();
    let is_column = |expr: &Arc<dyn PhysicalExpr>, name: &str| {
        expr.downcast_ref::<Column>()
            .is_some_and(|column| column.name() == name)
    };
    let mut groups = aggregate.group_expr().expr().iter();
    groups.any(|(expr, name)| !is_column(expr, name) && input.index_of(name).is_ok())
}

/// Stands above an operator while filters are pushed, and lets none through.
#[derive(Debug)]
struct Fence(Plan);

impl DisplayAs for Fence {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fence")
    }
}

impl ExecutionPlan for Fence {
    fn name(&self) -> &'static str {
        "Fence"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
    }

    fn children(&self) -> Vec<&Plan> {
        vec![&self.0]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Plan>) -> Result<Plan> {
        match (children.pop(), children.is_empty()) {
            (Some(child), true) => Ok(Arc::new(Self(child))),
            _ => internal_err!("a fence has one child"),
        }
    }

    fn execute(
        &self,
        _partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        internal_err!("a fence is taken away before a plan runs")
    }
}
