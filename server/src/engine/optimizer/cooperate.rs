//! Joins that let go of their thread.
//!
//! The engine lets a stream yield at its sources. A join of two inputs in memory makes rows for hours
//! without asking a source again, so the task could neither be ended by a cancel nor share its thread.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::unnest::UnnestExec;

/// The rule, to run last.
pub(super) fn rule() -> Arc<dyn PhysicalOptimizerRule + Send + Sync> {
    Arc::new(Yielding)
}

#[derive(Debug)]
struct Yielding;

impl PhysicalOptimizerRule for Yielding {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rewritten = plan.transform_up(|node| match multiplies(node.as_ref()) {
            true => Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as _)),
            false => Ok(Transformed::no(node)),
        })?;
        Ok(rewritten.data)
    }

    fn name(&self) -> &'static str {
        "yielding_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// True for an operator that may give many batches for one that it takes.
fn multiplies(plan: &dyn ExecutionPlan) -> bool {
    plan.downcast_ref::<CrossJoinExec>().is_some()
        || plan.downcast_ref::<NestedLoopJoinExec>().is_some()
        || plan.downcast_ref::<HashJoinExec>().is_some()
        || plan.downcast_ref::<UnnestExec>().is_some()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    use super::*;

    /// On one thread, a timeout can only fire if the query gives the thread back.
    #[tokio::test]
    async fn a_large_join_can_be_ended() {
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_physical_optimizer_rule(rule())
            .build();
        let sql = "SELECT count(*) FROM generate_series(1, 1000000) AS a (i), \
                   generate_series(1, 1000000) AS b (j)";
        let query = SessionContext::new_with_state(state)
            .sql(sql)
            .await
            .unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(200), query.collect()).await;
        assert!(answer.is_err(), "it ended by itself");
    }
}
