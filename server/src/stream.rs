//! The log: WAL with group commit, tail, head, per-table committers, recovery.
//!
//! Owns the order *fsync → publish → acknowledge*, the one [`head::DbHead`] and every write to a
//! table that weir owns. It must not import `protocol` or `exec`.

pub mod head;
