//! Window functions: a value per row from the rows around it; and session windows, which group rows.

use std::sync::Arc;

use datafusion::logical_expr::WindowUDF;

pub mod hop_window;
pub mod session_id;
pub mod session_window;

/// Every window function.
pub fn functions() -> Vec<Arc<WindowUDF>> {
    vec![Arc::new(WindowUDF::from(session_id::SessionId::default()))]
}
