//! Privileges, lineage, audit.

pub mod scram;
