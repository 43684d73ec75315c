//! Answers from statistics, kept away from states.
//!
//! The engine's rule replaces an aggregation whose value the statistics know by that value. It takes
//! the step that reduces states to fewer states for a final one, and would put the value where a
//! state is expected.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::aggregate_statistics::AggregateStatistics;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};

/// The engine's physical rules, safe for plans with states in them.
pub fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    for rule in &mut rules {
        if rule.name() == AggregateStatistics::new().name() {
            *rule = Arc::new(OutsideReductions(AggregateStatistics::new()));
        }
    }
    rules
}

#[derive(Debug)]
struct OutsideReductions(AggregateStatistics);

impl PhysicalOptimizerRule for OutsideReductions {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut reduces = false;
        plan.apply(|node| {
            reduces |= node
                .downcast_ref::<AggregateExec>()
                .is_some_and(|a| *a.mode() == AggregateMode::PartialReduce);
            Ok(TreeNodeRecursion::Continue)
        })?;
        match reduces {
            true => Ok(plan),
            false => self.0.optimize(plan, config),
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}
