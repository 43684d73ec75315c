//! Catalogs, schemas, tables and keys. What a caller may see is decided by SQL: everything here is
//! read through its own session.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{Command, CommandGetDbSchemas, CommandGetTables};
use futures::TryStreamExt;

use super::ingest::quoted;
use super::query::only_statement;
use super::{sql_info, type_info};
use crate::error::{Error, Result, SqlState};
use crate::exec::Outcome;
use crate::protocol::backend::DataCalls;
use crate::protocol::credentials::Caller;
use crate::protocol::plain::plain_schema;

/// The one database.
const DATABASE: &str = "weir";

/// More objects than this are not listed; a pattern narrows them.
const MAX_OBJECTS: usize = 100_000;

/// The result schema of a metadata command.
pub(super) fn schema(command: &Command) -> Result<SchemaRef> {
    Ok(match command {
        Command::CommandGetCatalogs(c) => c.into_builder().schema(),
        Command::CommandGetDbSchemas(c) => c.clone().into_builder().schema(),
        Command::CommandGetTables(c) => c.clone().into_builder().schema(),
        Command::CommandGetTableTypes(c) => c.into_builder().schema(),
        Command::CommandGetSqlInfo(_) => sql_info::data()?.schema(),
        Command::CommandGetXdbcTypeInfo(_) => type_info::data()?.schema(),
        Command::CommandGetPrimaryKeys(_) => primary_keys(),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => foreign_keys(),
        other => {
            return Err(Error::unsupported(
                format!("command \"{}\" is not supported", other.type_url()),
                "send the query as SQL text",
            ));
        }
    })
}

/// The result of a metadata command.
pub(super) async fn batch(caller: &Caller, command: Command) -> Result<RecordBatch> {
    let session = &*caller.session;
    Ok(match command {
        Command::CommandGetCatalogs(c) => {
            let mut builder = c.into_builder();
            builder.append(DATABASE);
            builder.build().map_err(unbuildable)?
        }
        Command::CommandGetDbSchemas(c) => schemas(session, c).await?,
        Command::CommandGetTables(c) => tables(session, c).await?,
        Command::CommandGetTableTypes(c) => {
            let mut builder = c.into_builder();
            for kind in ["TABLE", "VIEW", "MATERIALIZED VIEW"] {
                builder.append(kind);
            }
            builder.build().map_err(unbuildable)?
        }
        Command::CommandGetSqlInfo(c) => sql_info::data()?
            .record_batch(c.info)
            .map_err(unbuildable)?,
        Command::CommandGetXdbcTypeInfo(c) => type_info::data()?
            .record_batch(c.data_type)
            .map_err(unbuildable)?,
        // no table has keys
        other => RecordBatch::new_empty(schema(&other)?),
    })
}

async fn schemas(session: &dyn DataCalls, command: CommandGetDbSchemas) -> Result<RecordBatch> {
    let mut sql = "SELECT schema_name FROM information_schema.schemata".to_owned();
    if let Some(pattern) = &command.db_schema_filter_pattern {
        sql.push_str(&format!(" WHERE schema_name LIKE {}", literal(pattern)));
    }
    let mut builder = command.into_builder();
    for row in texts(session, &sql, 1).await? {
        builder.append(DATABASE, &row[0]);
    }
    builder.build().map_err(unbuildable)
}

async fn tables(session: &dyn DataCalls, command: CommandGetTables) -> Result<RecordBatch> {
    let mut sql = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                   WHERE true"
        .to_owned();
    let patterns = [
        ("table_schema", &command.db_schema_filter_pattern),
        ("table_name", &command.table_name_filter_pattern),
    ];
    for (column, pattern) in patterns {
        if let Some(pattern) = pattern {
            sql.push_str(&format!(" AND {column} LIKE {}", literal(pattern)));
        }
    }
    let include_schema = command.include_schema;
    let wanted = command.table_types.clone();
    let mut builder = command.into_builder();
    for row in texts(session, &sql, 3).await? {
        let (schema, table) = (&row[0], &row[1]);
        let kind = match row[2].as_str() {
            "BASE TABLE" => "TABLE",
            other => other,
        };
        if !wanted.is_empty() && !wanted.iter().any(|w| w == kind) {
            continue;
        }
        let columns = match include_schema {
            true => table_schema(session, schema, table).await?,
            false => Arc::new(Schema::empty()),
        };
        builder
            .append(DATABASE, schema, table, kind, &columns)
            .map_err(unbuildable)?;
    }
    builder.build().map_err(unbuildable)
}

/// Columns as a query would give them. A table that the caller may list but not read, or that is
/// gone by now, shows none.
async fn table_schema(session: &dyn DataCalls, schema: &str, table: &str) -> Result<SchemaRef> {
    let sql = format!("SELECT * FROM {}.{}", quoted(schema), quoted(table));
    let statement = only_statement(session, &sql)?;
    match session.describe(&statement, &[]).await {
        Ok(description) => Ok(description
            .schema
            .map_or_else(|| Arc::new(Schema::empty()), |s| plain_schema(&s))),
        Err(e) => {
            tracing::debug!(schema, table, error = %e, "table is listed without columns");
            Ok(Arc::new(Schema::empty()))
        }
    }
}

/// Rows of a query whose first `columns` columns are texts.
async fn texts(session: &dyn DataCalls, sql: &str, columns: usize) -> Result<Vec<Vec<String>>> {
    let statement = only_statement(session, sql)?;
    let Outcome::Rows { mut stream, .. } = session.execute(&statement, Vec::new()).await? else {
        return Err(Error::Internal("a catalog query gave no rows".to_owned()));
    };
    let mut rows = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        if rows.len() + batch.num_rows() > MAX_OBJECTS {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "too many objects to list",
            )
            .with_hint("narrow the schema and table patterns"));
        }
        let cells = batch
            .columns()
            .iter()
            .take(columns)
            .map(|c| arrow::compute::cast(c, &DataType::Utf8))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let row = cells.iter().map(|c| c.as_string::<i32>().value(row));
            rows.push(row.map(str::to_owned).collect());
        }
    }
    Ok(rows)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn unbuildable(e: FlightError) -> Error {
    Error::Internal(format!("cannot build a metadata answer: {e}"))
}

fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

fn foreign_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}
