//! Grants: who may do what to which object.

use serde::{Deserialize, Serialize};

use super::{ObjectKind, Oid};

/// A privilege, with PostgreSQL's names where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// Read rows of a relation.
    Select,
    /// Add rows.
    Insert,
    /// Change rows.
    Update,
    /// Remove rows.
    Delete,
    /// Empty a table.
    Truncate,
    /// See into a schema; use a secret or a model.
    Usage,
    /// Make objects in a schema.
    Create,
}

/// One granted privilege on one object, or on one column of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// What kind of object.
    pub object_kind: ObjectKind,
    /// Which object.
    pub object: Oid,
    /// Only this column of a relation, or all of it.
    pub column: Option<String>,
    /// What is allowed.
    pub privilege: Privilege,
    /// To whom; `None` is `PUBLIC`.
    pub grantee: Option<Oid>,
    /// By whom.
    pub grantor: Oid,
    /// The grantee may grant it on.
    pub grant_option: bool,
}
