//! The forward-only schema of the catalog, embedded from `/migrations`. An applied migration is
//! never edited: its checksum is stored, and a changed or unknown one stops the start.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Number, name and text of every migration, in order.
const ALL: &[(i64, &str, &str)] = &[(
    1,
    "catalog",
    include_str!("../../../migrations/0001_catalog.sql"),
)];

/// Applies what is missing, each migration in its own transaction; on PostgreSQL under an advisory
/// lock, so that servers that start together wait for each other.
pub(super) fn migrator() -> Migrator {
    let migrations = ALL
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(
                *version,
                Cow::Borrowed(*name),
                MigrationType::Simple,
                Cow::Borrowed(*sql),
                false,
            )
        })
        .collect();
    Migrator {
        migrations: Cow::Owned(migrations),
        ..Migrator::DEFAULT
    }
}
