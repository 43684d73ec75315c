//! The typed model: one file per entity, no behaviour beyond look-ups.

mod audit;
mod grant;
mod lineage;
mod ml;
mod relation;
mod role;
mod schema;
mod secret;
mod snapshot;
mod sql_type;

pub use audit::{AuditOutcome, AuditRow};
pub use grant::{Grant, Privilege};
pub use lineage::{LineageEdge, LineageKind};
pub use ml::{Model, ModelVersion};
pub use relation::{Column, MadeIn, MaterializedView, Relation, RelationKind, Strategy};
pub use role::Role;
pub use schema::{Schema, names_temporary};
pub use secret::Secret;
pub use snapshot::Snapshot;
pub use sql_type::SqlType;

use serde::{Deserialize, Serialize};

/// Identifies any object for its whole life, also over restarts; shown to clients as an `oid`.
/// User objects start at 16384, as in PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Oid(pub u32);

impl std::fmt::Display for Oid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The kinds of things a name can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A role (user or group).
    Role,
    /// A schema.
    Schema,
    /// A table, view or materialized view.
    Relation,
    /// A model.
    Model,
    /// A secret.
    Secret,
}

impl std::fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Role => "role",
            Self::Schema => "schema",
            Self::Relation => "relation",
            Self::Model => "model",
            Self::Secret => "secret",
        })
    }
}
