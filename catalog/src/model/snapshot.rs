//! One consistent view of the whole catalog.

use super::{Grant, Model, ModelVersion, Oid, Relation, Role, Schema, Secret};

/// Everything that names resolve against, as of one committed transaction. Immutable: a statement
/// takes one and keeps it. Lineage and audit are not in it; they are read on demand.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counts committed catalog transactions.
    pub generation: i64,
    /// All roles.
    pub roles: Vec<Role>,
    /// All schemas.
    pub schemas: Vec<Schema>,
    /// All relations.
    pub relations: Vec<Relation>,
    /// All models.
    pub models: Vec<Model>,
    /// All versions of all models.
    pub model_versions: Vec<ModelVersion>,
    /// All secrets.
    pub secrets: Vec<Secret>,
    /// All grants.
    pub grants: Vec<Grant>,
}

impl Snapshot {
    /// The role of that name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|r| r.name == name)
    }

    /// The role with that id.
    pub fn role_by_oid(&self, oid: Oid) -> Option<&Role> {
        self.roles.iter().find(|r| r.oid == oid)
    }

    /// The schema of that name.
    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.iter().find(|s| s.name == name)
    }

    /// The schema with that id.
    pub fn schema_by_oid(&self, oid: Oid) -> Option<&Schema> {
        self.schemas.iter().find(|s| s.oid == oid)
    }

    /// The relation `schema.name`.
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        let schema = self.schema(schema)?.oid;
        self.relations
            .iter()
            .find(|r| r.schema == schema && r.name == name)
    }

    /// The relation with that id.
    pub fn relation_by_oid(&self, oid: Oid) -> Option<&Relation> {
        self.relations.iter().find(|r| r.oid == oid)
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|m| m.name == name)
    }

    /// Version `number` of a model.
    pub fn model_version(&self, model: Oid, number: i32) -> Option<&ModelVersion> {
        self.model_versions
            .iter()
            .find(|v| v.model == model && v.number == number)
    }

    /// The secret of that name.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.iter().find(|s| s.name == name)
    }

    /// `schema.name` of a relation, for messages.
    pub fn qualified_name(&self, relation: &Relation) -> String {
        match self.schema_by_oid(relation.schema) {
            Some(schema) => format!("{}.{}", schema.name, relation.name),
            None => relation.name.clone(),
        }
    }
}
