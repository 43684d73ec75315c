//! `pg_catalog`: what PostgreSQL clients read to find their way, one file per table that has rows.
//! weir's objects have the oids of the catalog; parts of them (defaults, constraints) have oids
//! derived from theirs, so that a client that remembers one finds the same thing again.

mod acl;
mod pg_attrdef;
mod pg_attribute;
mod pg_auth_members;
mod pg_class;
pub(super) mod pg_constraint;
mod pg_database;
pub(super) mod pg_description;
mod pg_namespace;
pub(super) mod pg_proc;
mod pg_roles;
mod pg_settings;
mod pg_stat_activity;
mod pg_tables;
pub(super) mod pg_type;
mod small;

use std::sync::Arc;

use catalog::Oid;

use super::SystemContext;
use super::frame::Frame;
use crate::error::Result;

/// The bootstrap superuser, owner of all system objects.
pub(super) const SUPERUSER: Oid = Oid(10);
/// The one database.
pub(super) const DATABASE: u32 = 16384;
/// `pg_namespace.oid` of the schema `weir`.
pub(super) const WEIR: u32 = 13300;
/// `pg_namespace.oid` of the system schemas.
pub(super) const NAMESPACES: [(&str, u32); 3] = [
    ("pg_catalog", 11),
    ("information_schema", 13207),
    ("weir", WEIR),
];

pub(super) fn fill(name: &str, frame: &mut Frame, cx: &Arc<SystemContext>) -> Result<()> {
    match name {
        "pg_am" => small::pg_am(frame),
        "pg_attrdef" => pg_attrdef::fill(frame, cx),
        "pg_attribute" => pg_attribute::fill(frame, cx),
        "pg_auth_members" => pg_auth_members::fill(frame, cx),
        "pg_class" => pg_class::fill(frame, cx),
        "pg_collation" => small::pg_collation(frame),
        "pg_constraint" => pg_constraint::fill(frame, cx),
        "pg_database" => pg_database::fill(frame, cx),
        "pg_description" => pg_description::fill(frame, cx),
        "pg_group" => pg_roles::pg_group(frame, cx),
        "pg_language" => small::pg_language(frame),
        "pg_matviews" => pg_tables::pg_matviews(frame, cx),
        "pg_namespace" => pg_namespace::fill(frame, cx),
        "pg_proc" => pg_proc::fill(frame, cx),
        "pg_roles" => pg_roles::fill(frame, cx),
        "pg_settings" => pg_settings::fill(frame, cx),
        "pg_stat_activity" => pg_stat_activity::fill(frame, cx),
        "pg_stat_all_tables" | "pg_stat_user_tables" => pg_tables::pg_stat_tables(frame, cx),
        "pg_tables" => pg_tables::fill(frame, cx),
        "pg_tablespace" => small::pg_tablespace(frame),
        "pg_type" => pg_type::fill(frame),
        "pg_user" => pg_roles::pg_user(frame, cx),
        "pg_views" => pg_tables::pg_views(frame, cx),
        // weir has no such objects: the table is there, typed and empty
        _ => Ok(()),
    }
}

/// Whether a table of this schema has no rows whatever the database holds.
pub(super) fn always_empty(name: &str) -> bool {
    const FILLED: [&str; 24] = [
        "pg_am",
        "pg_attrdef",
        "pg_attribute",
        "pg_auth_members",
        "pg_class",
        "pg_collation",
        "pg_constraint",
        "pg_database",
        "pg_description",
        "pg_group",
        "pg_language",
        "pg_matviews",
        "pg_namespace",
        "pg_proc",
        "pg_roles",
        "pg_settings",
        "pg_stat_activity",
        "pg_stat_all_tables",
        "pg_stat_user_tables",
        "pg_tables",
        "pg_tablespace",
        "pg_type",
        "pg_user",
        "pg_views",
    ];
    !FILLED.contains(&name)
}

/// The oid of a schema's namespace.
pub(super) fn namespace_oid(cx: &SystemContext, schema: &str) -> Option<u32> {
    NAMESPACES
        .iter()
        .find(|(name, _)| *name == schema)
        .map(|(_, oid)| *oid)
        .or_else(|| cx.catalog.schema(schema).map(|s| s.oid.0))
}

/// The oid of the `n`th part of an object: always the same, above all oids that are given out.
pub(super) fn derived_oid(kind: &str, object: Oid, n: usize) -> u32 {
    let text = format!("{kind}/{object}/{n}");
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash | 0x8000_0000
}
