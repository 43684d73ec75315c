//! Streaming tables that the server makes for itself: state that must be atomic with rows of the log.
//!
//! Their rows are further parts of the record that they belong to, so they are durable, recovered,
//! flushed and bounded like any others. They have reserved ids, lie under `_weir/` in the warehouse
//! and have no name that SQL could reach: what may be seen of them is shown by system tables.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::Oid;
use url::Url;

pub use super::letters::day;
use super::letters::{self, moment};
use super::{TableSpec, stored_schema};
use crate::error::{Error, Result, SqlState};
use crate::lake;

/// Rows that were refused: see [`letters`].
pub const DEAD_LETTERS: Oid = Oid(14_001);
/// What became of dead letters that were tried again.
pub const REPLAYS: Oid = Oid(14_002);
/// Answers to requests that carried an idempotency key.
pub const KEYS: Oid = Oid(14_003);

/// Gives a table's columns.
type Columns = fn() -> SchemaRef;

/// The tables, in no order.
const ALL: [(Oid, &str, Columns); 3] = [
    (DEAD_LETTERS, "dead_letters", letters::schema),
    (REPLAYS, "replays", letters::attempts_schema),
    (KEYS, "idempotency_keys", keys_schema),
];

/// True for one of them.
pub(super) fn is(table: Oid) -> bool {
    ALL.iter().any(|(oid, _, _)| *oid == table)
}

/// The column that all of them are partitioned by: old days are dropped whole.
pub const DAY: &str = "day";

/// The tables of a warehouse, made where they are missing.
///
/// # Errors
/// What making a table reports.
pub async fn prepare(warehouse: &Url) -> Result<Vec<TableSpec>> {
    let mut specs = Vec::with_capacity(ALL.len());
    for (oid, name, schema) in ALL {
        let root = warehouse
            .join(&format!("_weir/{name}/"))
            .map_err(|e| Error::Internal(format!("warehouse url cannot be extended: {e}")))?;
        let spec = TableSpec {
            oid,
            name: format!("_weir.{name}"),
            schema: schema(),
            partition_by: vec![DAY.to_owned()],
            streaming: true,
            root,
            flush_interval: None,
            dedup: None,
            bloom_filters: Vec::new(),
        };
        let stored = stored_schema(&spec.schema);
        match lake::create(&spec.root, &stored, &spec.partition_by).await {
            Ok(_) => {}
            Err(e) if e.state() == SqlState::DUPLICATE_TABLE => {}
            Err(e) => return Err(e),
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// One row per answered request; its position is the request's token.
pub fn keys_schema() -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![
        number("role_oid"),
        number("table_oid"),
        Field::new("key", DataType::Utf8, false),
        Field::new("fingerprint", DataType::Binary, false),
        number("accepted"),
        number("rejected"),
        number("duplicate"),
        moment("answered_at"),
        Field::new(DAY, DataType::Date32, false),
    ]))
}
