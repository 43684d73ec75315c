//! The rules that make a physical plan ready to run: DataFusion's, and what weir changes of them.
//!
//! | module | what lies there |
//! |---|---|
//! | `pushdown` | filters that stay above columns of one name |
//! | `cooperate` | joins that yield |

mod cooperate;
mod pushdown;

use std::sync::Arc;

use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

/// All rules, in the order in which they run.
pub fn rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let theirs = PhysicalOptimizer::new().rules.into_iter();
    theirs
        .map(pushdown::fenced)
        .chain([cooperate::rule()])
        .collect()
}
