//! Column lineage edges.

use serde::{Deserialize, Serialize};

use super::Oid;

/// How a source column reaches a target column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineageKind {
    /// Its value flows into the target's value.
    Direct,
    /// It decides which rows or groups there are (filter, join, group, window, order).
    Indirect,
}

/// `source.column → target.column`. A superset by design: no flow is left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineageEdge {
    /// The relation or model that was written or defined.
    pub target: Oid,
    /// Its column; `*` when the whole object is meant (an indirect edge, a model).
    pub target_column: String,
    /// The relation that was read.
    pub source: Oid,
    /// Its column.
    pub source_column: String,
    /// How.
    pub kind: LineageKind,
    /// The statement that made the edge first: `CREATE VIEW`, `INSERT`, …
    pub statement: String,
}
