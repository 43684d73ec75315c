//! Models and their versions.

use std::collections::BTreeMap;

use super::Oid;

/// A named model; what it computes is its versions'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Identity.
    pub oid: Oid,
    /// Name, unique in the database.
    pub name: String,
    /// `logistic_regression`, `kmeans`.
    pub kind: String,
    /// Owning role.
    pub owner: Oid,
    /// The version that a bare name means.
    pub current: i32,
    /// Alias → version number.
    pub aliases: BTreeMap<String, i32>,
    /// Optimistic version.
    pub version: i64,
}

/// One trained state of a model. Never changed after it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelVersion {
    /// Its model.
    pub model: Oid,
    /// Number, from 1.
    pub number: i32,
    /// The training query as the user wrote it.
    pub query: String,
    /// Options as written.
    pub options: BTreeMap<String, String>,
    /// The model itself in weir's own JSON form (coefficients, scaler, centroids, encoders).
    pub artifact: serde_json::Value,
    /// Metrics by name, all finite.
    pub metrics: serde_json::Value,
    /// When training ended, microseconds since the Unix epoch, UTC.
    pub trained_at_micros: i64,
}
