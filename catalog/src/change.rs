//! What a statement may do to the catalog, as values. One statement is one `Vec<Change>`, applied in
//! one transaction or not at all.

use crate::model::{
    Grant, LineageEdge, Model, ModelVersion, ObjectKind, Oid, Relation, Role, Schema, Secret,
};

/// One step of a catalog transaction.
///
/// `Put*` inserts when the entity's `version` is 0 and otherwise replaces the stored row, provided it
/// still has that version ([`crate::CatalogError::ConcurrentModification`] if not); the stored version
/// becomes one more. Entities to be inserted carry an oid from [`crate::Store::allocate_oid`].
#[derive(Debug, Clone)]
pub enum Change {
    /// Insert or replace a role.
    PutRole(Role),
    /// Insert or replace a schema.
    PutSchema(Schema),
    /// Insert or replace a relation.
    PutRelation(Relation),
    /// Insert or replace a model.
    PutModel(Model),
    /// Add a model version.
    AddModelVersion(ModelVersion),
    /// Insert or replace a secret.
    PutSecret(Secret),
    /// Add a grant; one that is there already is left as it is.
    AddGrant(Grant),
    /// Take a grant back; `grant_option` and `grantor` are not compared. One that is not there is no error.
    RemoveGrant(Grant),
    /// Drop an object with its grants and the lineage edges that end in it. `version` is what the
    /// statement read. Fails with `DependentObjects` while another relation's `depends_on` names it
    /// and the same transaction does not drop that relation first.
    Drop {
        /// What kind of object.
        kind: ObjectKind,
        /// Which one.
        oid: Oid,
        /// The version the statement read.
        version: i64,
    },
    /// Add lineage edges; those that are there already stay.
    AddLineage(Vec<LineageEdge>),
    /// Remove the lineage edges that end in an object (before a redefinition adds its own).
    ClearLineage {
        /// The object that is redefined.
        target: Oid,
    },
}
