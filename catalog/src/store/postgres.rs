//! The shared backend: a PostgreSQL database, for several servers over one lake.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow, Postgres};
use sqlx::{Column as _, Row as _, Transaction, TypeInfo as _};

use super::driver::{Driver, Mode, Tx, Value};
use super::migrations::migrator;
use super::sql::SqlStore;
use crate::CatalogError;

/// How long to wait for a connection.
const ACQUIRE: Duration = Duration::from_secs(10);

/// The catalog in a PostgreSQL database.
pub type PostgresStore = SqlStore<PostgresDriver>;

/// Connections to one PostgreSQL database.
#[derive(Debug)]
pub struct PostgresDriver {
    pool: PgPool,
}

impl PostgresStore {
    /// Connects and brings the schema up to date. Tables go to the first schema of the connection's
    /// `search_path`.
    ///
    /// # Errors
    /// `Store` when it cannot be reached, `Migration` when its schema does not fit.
    pub async fn open(url: &str) -> Result<Self, CatalogError> {
        let failed = |source| CatalogError::Store {
            action: "connect to the catalog database",
            source,
        };
        let options = PgConnectOptions::from_str(url)
            .map_err(failed)?
            .application_name("weir catalog")
            // the server ends what we no longer wait for; acknowledged means on disk
            .options([
                ("statement_timeout", "30s"),
                ("lock_timeout", "15s"),
                ("idle_in_transaction_session_timeout", "60s"),
                ("synchronous_commit", "on"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(ACQUIRE)
            .connect_with(options)
            .await
            .map_err(failed)?;
        migrator()
            .run(&pool)
            .await
            .map_err(CatalogError::Migration)?;
        Ok(SqlStore::over(PostgresDriver { pool }))
    }
}

#[async_trait]
impl Driver for PostgresDriver {
    async fn begin(&self, mode: Mode) -> Result<Box<dyn Tx>, sqlx::Error> {
        let begin = match mode {
            Mode::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            // writers lock a row first; each later statement must see what the one before committed
            Mode::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        };
        Ok(Box::new(self.pool.begin_with(begin).await?))
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

#[async_trait]
impl Tx for Transaction<'static, Postgres> {
    async fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64, sqlx::Error> {
        let done = bind(sql, args).execute(&mut **self).await?;
        Ok(done.rows_affected())
    }

    async fn fetch(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Vec<Value>>, sqlx::Error> {
        let rows = bind(sql, args).fetch_all(&mut **self).await?;
        rows.iter().map(decode).collect()
    }

    async fn commit(self: Box<Self>) -> Result<(), sqlx::Error> {
        Transaction::commit(*self).await
    }
}

fn bind<'q>(sql: &'q str, args: &[Value]) -> sqlx::query::Query<'q, Postgres, PgArguments> {
    args.iter().fold(sqlx::query(sql), |q, arg| match arg {
        Value::Int(v) => q.bind(*v),
        Value::Text(v) => q.bind(v.clone()),
    })
}

fn decode(row: &PgRow) -> Result<Vec<Value>, sqlx::Error> {
    row.columns()
        .iter()
        .map(|column| {
            let i = column.ordinal();
            Ok(if column.type_info().name() == "INT8" {
                Value::Int(row.try_get(i)?)
            } else {
                Value::Text(row.try_get(i)?)
            })
        })
        .collect()
}
