//! Schemas.

use super::Oid;

/// What the schemas of temporary tables are named with before their session's number.
const TEMPORARY: &str = "pg_temp_";

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

impl Schema {
    /// The name of the schema that holds the temporary tables of a session.
    pub fn temporary(session: i32) -> String {
        format!("{TEMPORARY}{session}")
    }

    /// True for a schema of temporary tables: none but its session may know of it.
    pub fn is_temporary(&self) -> bool {
        self.name.starts_with(TEMPORARY)
    }
}

/// True for a name that schemas of temporary tables alone can have, and for the name that every session
/// knows its own by, `pg_temp`.
pub fn names_temporary(schema: &str) -> bool {
    schema == "pg_temp" || schema.starts_with(TEMPORARY)
}
