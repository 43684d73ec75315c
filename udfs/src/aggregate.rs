//! Aggregate functions: many rows in, one value out. Their states merge in any order.

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;

pub mod window_funnel;

/// Every aggregate function.
pub fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(AggregateUDF::from(
        window_funnel::WindowFunnel::default(),
    ))]
}
