//! Scalar functions: one row in, one value out.

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::async_udf::AsyncScalarUDF;

pub mod convert_from;
pub mod hash_token;
pub mod mask_email;
pub mod pg_sleep;

use crate::window::{hop_window, session_window};

/// The scalar function that needs secrets.
pub fn keyed(keys: &Arc<dyn hash_token::SecretKeys>) -> Arc<ScalarUDF> {
    Arc::new(hash_token::HashToken::new(Arc::clone(keys)).into())
}

/// Every other scalar function.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::from(convert_from::ConvertFrom::default())),
        Arc::new(ScalarUDF::from(mask_email::MaskEmail::default())),
        Arc::new(AsyncScalarUDF::new(Arc::new(pg_sleep::PgSleep::default())).into_scalar_udf()),
        Arc::new(ScalarUDF::from(hop_window::HopWindow::default())),
        Arc::new(ScalarUDF::from(session_window::SessionWindow::default())),
    ]
}
