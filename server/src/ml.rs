//! Models: training at a pinned cut, scoring as vectorized functions, evaluation.
//!
//! Owns the model artifact (weir's own JSON, never a library's layout), the algorithms, the metrics
//! and the SQL functions over models. It reads no table and writes no catalog: training gets batches,
//! scoring gets models from a [`ModelResolver`].
//!
//! | module | what lies there |
//! |---|---|
//! | [`artifact`] | what is stored of a trained model |
//! | [`encode`] | columns → numbers, the same way in training and scoring |
//! | [`mod@train`] | options, validation, hold-out split |
//! | [`logistic`], [`kmeans`] | the algorithms |
//! | [`metrics`] | what is reported about a classifier |
//! | [`score`] | a model over Arrow columns |
//! | [`mod@functions`] | `predict`, `predict_proba`, `cluster_of` |
//! | [`relations`] | `ml_evaluate`, `ml_weights` in `FROM` |

pub mod artifact;
pub mod encode;
pub mod functions;
pub mod kmeans;
pub mod logistic;
pub mod metrics;
pub mod relations;
pub mod score;
pub mod train;

pub use functions::{documentation, functions};
pub use relations::{bind_relation_arguments, relation_planner};
pub use score::ScoringModel;
pub use train::{Trained, train};

/// Finds models for one statement. Answers from the statement's catalog snapshot, so that every row
/// and every partition of it is scored by the same version, and checks that the caller may use the model.
///
/// It is asked once per batch: implementations keep what they parsed.
pub trait ModelResolver: std::fmt::Debug + Send + Sync {
    /// The model behind `name`, `name@3` or `name@alias`.
    fn resolve(&self, spec: &str) -> crate::error::Result<std::sync::Arc<ScoringModel>>;
}

#[cfg(test)]
mod tests;
