//! Relations: tables, streaming tables, external tables, views and materialized views.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Oid, SqlType};

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelationKind {
    /// A plain Delta table without a tail.
    Table,
    /// A Delta table fed through the log.
    StreamingTable,
    /// Files that others own.
    ExternalTable,
    /// A stored query.
    View,
    /// A stored query with kept state.
    MaterializedView,
}

/// How a materialized view is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Result rows are appended as source rows arrive.
    Append,
    /// Partial aggregate states are kept and merged at read.
    Agg,
    /// As `Agg`, one level below: keyed by the distinct values too, counted at read.
    Agg2,
    /// Partial states of sessions are kept; a read joins sessions that touch.
    Session,
    /// The first rows of each key are kept.
    Top,
    /// Results are kept by key; those of keys with new rows are computed again.
    Keyed,
    /// The result is kept and made anew.
    Full,
}

/// One column of a relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Type.
    pub sql_type: SqlType,
    /// May hold NULL.
    pub nullable: bool,
    /// `DEFAULT` expression as SQL text.
    pub default: Option<String>,
    /// `GENERATED ALWAYS AS (…) STORED` expression as SQL text.
    pub generated: Option<String>,
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// When the column came to be, if later than its relation: no object has this id, older ones have a
    /// smaller one and newer ones a greater one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Oid>,
}

impl Column {
    /// A column that may hold NULL, with nothing else said of it.
    pub fn plain(name: impl Into<String>, sql_type: SqlType) -> Self {
        Self {
            name: name.into(),
            sql_type,
            nullable: true,
            default: None,
            generated: None,
            comment: None,
            since: None,
        }
    }
}

/// What only materialized views have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaterializedView {
    /// How it is kept.
    pub strategy: Strategy,
    /// Reason codes of the analysis, `AGG_OK` and the like.
    pub codes: Vec<String>,
    /// Version of the encoding of its state.
    pub state_format: i32,
    /// The table by whose name the state keeps its position.
    pub source: Oid,
    /// Every table the state is made from.
    #[serde(default)]
    pub sources: Vec<Oid>,
    /// Place of the result column by which results age, for those that have had a retention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ages_by: Option<u32>,
    /// What its query's names and times mean.
    #[serde(default)]
    pub made_in: Option<Box<MadeIn>>,
}

/// The session that a materialized view was made in, as far as its query depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeIn {
    /// Schema that unqualified names mean.
    pub schema: String,
    /// `TimeZone`.
    pub time_zone: String,
}

/// A named set of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Identity.
    pub oid: Oid,
    /// Its schema.
    pub schema: Oid,
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Owning role.
    pub owner: Oid,
    /// Visible columns, in order.
    pub columns: Vec<Column>,
    /// Partition columns of a table.
    pub partition_by: Vec<String>,
    /// `CHECK` constraints: name → SQL text of the expression.
    pub checks: BTreeMap<String, String>,
    /// `WITH (…)` options as given.
    pub options: BTreeMap<String, String>,
    /// URL of the Delta table (of the state, for a materialized view); views have none.
    pub location: Option<String>,
    /// Defining query as the user wrote it, for views and materialized views.
    pub query: Option<String>,
    /// Relations the defining query reads.
    pub depends_on: Vec<Oid>,
    /// Set for materialized views.
    pub materialized: Option<MaterializedView>,
    /// `COMMENT ON`.
    pub comment: Option<String>,
    /// Optimistic version.
    pub version: i64,
}

impl Relation {
    /// When a view's query was written: columns of a later [`Column::since`] were not there yet.
    pub fn defined(&self) -> Oid {
        let columns = self.columns.iter().filter_map(|c| c.since);
        columns.fold(self.oid, Oid::max)
    }
}
