//! Privileges, lineage, audit.

pub mod lineage;
