//! The one error enum of this crate.

use crate::model::ObjectKind;

/// Everything a catalog operation can report.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The named object is not there.
    #[error("{kind} \"{name}\" does not exist")]
    NotFound {
        /// What was looked for.
        kind: ObjectKind,
        /// Its name as the user wrote it.
        name: String,
    },
    /// The name is taken.
    #[error("{kind} \"{name}\" already exists")]
    AlreadyExists {
        /// What was to be made.
        kind: ObjectKind,
        /// The name that is taken.
        name: String,
    },
    /// Another transaction changed the object since this statement read it (SQLSTATE 40001).
    #[error("{kind} \"{name}\" was changed by another transaction")]
    ConcurrentModification {
        /// What was to be changed.
        kind: ObjectKind,
        /// Its name.
        name: String,
    },
    /// Other objects depend on this one.
    #[error("cannot drop {kind} \"{name}\" because other objects depend on it")]
    DependentObjects {
        /// What was to be dropped.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// The dependents' names.
        dependents: Vec<String>,
    },
    /// A stored value does not parse: the catalog was written by something else.
    #[error("catalog holds an unreadable {what}")]
    Corrupt {
        /// Which value.
        what: &'static str,
    },
    /// The backend failed.
    #[error("catalog store failed while trying to {action}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// The backend's own error.
        #[source]
        source: sqlx::Error,
    },
    /// A migration could not be applied.
    #[error("catalog migration failed")]
    Migration(#[source] sqlx::migrate::MigrateError),
}

impl CatalogError {
    /// True when the backend had no room left on its disk.
    pub fn is_disk_full(&self) -> bool {
        let Self::Store {
            source: sqlx::Error::Database(e),
            ..
        } = self
        else {
            return false;
        };
        // SQLite's SQLITE_FULL, PostgreSQL's disk_full
        matches!(e.code().as_deref(), Some("13" | "53100"))
    }
}
