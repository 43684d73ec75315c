//! SQL functions of weir: one file each, no server state.
//!
//! Owns every scalar, aggregate and window function that needs nothing but its arguments, their
//! documentation, and the analyzer rule behind [`window::session_window`]. What a function needs from
//! a server it gets through a trait ([`scalar::hash_token::SecretKeys`]); this package must not know the
//! server or the catalog.
//!
//! A function is one file in its kind's folder, named as in SQL, and one line in that kind's list.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::registry::FunctionRegistry;

pub mod aggregate;
pub mod docs;
mod duration;
pub mod error;
pub mod scalar;
mod sketch;
pub mod window;

pub use docs::{FunctionDoc, functions_markdown};
pub use error::{FunctionError, Kind};
pub use scalar::hash_token::SecretKeys;
pub use window::session_window::{PlannedSessions, analyzer_rule, planned_sessions};

/// Registers every function of this package. `keys` is where `hash_token` finds its secrets.
///
/// [`analyzer_rule`] must be installed beside it, before the rules that fold or coerce expressions or
/// after them; without it `session_window` is refused wherever it stands.
///
/// # Errors
/// When the registry takes no functions.
pub fn register_all(registry: &mut dyn FunctionRegistry, keys: &Arc<dyn SecretKeys>) -> Result<()> {
    registry.register_udf(scalar::keyed(keys))?;
    register_keyless(registry)
}

/// Registers every function but [`scalar::keyed`]: those that are the same for all statements.
///
/// # Errors
/// When the registry takes no functions.
pub fn register_keyless(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for function in scalar::functions() {
        registry.register_udf(function)?;
    }
    for function in aggregate::functions() {
        registry.register_udaf(function)?;
    }
    for function in window::functions() {
        registry.register_udwf(function)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
