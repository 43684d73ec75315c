//! Aggregate functions: many rows in, one value out. Their states merge in any order.

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;

pub mod approx_distinct;
pub mod approx_median;
pub mod approx_percentile_cont;
pub mod approx_top_k;
pub mod window_funnel;

/// Every aggregate function.
pub fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::from(
            approx_distinct::ApproxDistinct::default(),
        )),
        Arc::new(AggregateUDF::from(approx_median::ApproxMedian::default())),
        Arc::new(AggregateUDF::from(
            approx_percentile_cont::ApproxPercentileCont::default(),
        )),
        Arc::new(AggregateUDF::from(approx_top_k::ApproxTopK::default())),
        Arc::new(AggregateUDF::from(window_funnel::WindowFunnel::default())),
    ]
}
