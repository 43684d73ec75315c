//! Audit rows: who did what, when, to which objects, with what outcome.

use serde::{Deserialize, Serialize};

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditOutcome {
    /// It completed.
    Ok,
    /// It ended in an error; see the row's SQLSTATE.
    Error,
}

/// One statement's trace. Rows are chained: each hash covers the row and the hash before it, so a
/// changed or missing row shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Position in the chain, from 1 without gaps. Set by the store.
    pub seq: i64,
    /// When the statement ended, microseconds since the Unix epoch, UTC.
    pub at_micros: i64,
    /// Session id.
    pub session: String,
    /// Door: `pg`, `flight`, `http`, `system`.
    pub door: String,
    /// Role that ran it.
    pub role: String,
    /// Command tag: `SELECT`, `CREATE TABLE`, …
    pub command: String,
    /// Statement text with literals replaced by `?`.
    pub statement: String,
    /// Names of the objects it read or wrote, `schema.name`.
    pub objects: Vec<String>,
    /// Rows returned or changed, when known.
    pub rows: Option<i64>,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// SQLSTATE of the error.
    pub sqlstate: Option<String>,
    /// Hex SHA-256 of the row before; empty for the first. Set by the store.
    pub prev_hash: String,
    /// Hex SHA-256 over `prev_hash` and every field above. Set by the store.
    pub hash: String,
}
