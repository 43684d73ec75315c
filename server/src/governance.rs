//! Privileges, lineage, audit.
