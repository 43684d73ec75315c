//! Schemas.

use super::Oid;

/// A namespace of relations and models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// Identity.
    pub oid: Oid,
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: Oid,
    /// Optimistic version.
    pub version: i64,
}
