//! The embedded backend: one SQLite file, readable by its owner only.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row as _, Transaction, TypeInfo as _, ValueRef as _};

use super::driver::{Driver, Mode, Tx, Value};
use super::migrations::migrator;
use super::sql::SqlStore;
use crate::CatalogError;

/// How long a statement waits for another process that holds the file.
const BUSY: Duration = Duration::from_secs(10);

/// The catalog in an SQLite file.
pub type SqliteStore = SqlStore<SqliteDriver>;

/// Connections to one SQLite file. SQLite has one writer at a time, so writers queue here, fairly,
/// instead of polling the file's lock.
#[derive(Debug)]
pub struct SqliteDriver {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, making it when it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// `Store` when the file cannot be opened, `Migration` when its schema does not fit.
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        let failed = |source| CatalogError::Store {
            action: "open the catalog file",
            source,
        };
        keep_private(path).await.map_err(|e| failed(e.into()))?;
        let options = SqliteConnectOptions::from_str("sqlite:")
            .map_err(failed)?
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(true);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(2 * BUSY)
        };
        let writer = pool(1)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        migrator()
            .run(&writer)
            .await
            .map_err(CatalogError::Migration)?;
        let readers = pool(4)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;
        Ok(SqlStore::over(SqliteDriver { writer, readers }))
    }
}

/// Makes the file before SQLite does, so that no other user can ever open it: it holds password
/// verifiers and keys. SQLite gives its journal files the mode of the main file.
async fn keep_private(path: &Path) -> std::io::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    options.mode(0o600);
    let file = options.open(path).await?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .await?;
    }
    file.sync_all().await
}

#[async_trait]
impl Driver for SqliteDriver {
    async fn begin(&self, mode: Mode) -> Result<Box<dyn Tx>, sqlx::Error> {
        let tx = match mode {
            Mode::Read => self.readers.begin().await?,
            // a transaction that reads first and writes later could not be made to wait its turn
            Mode::Write => self.writer.begin_with("BEGIN IMMEDIATE").await?,
        };
        Ok(Box::new(tx))
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl Tx for Transaction<'static, Sqlite> {
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

fn bind<'q>(sql: &'q str, args: &[Value]) -> sqlx::query::Query<'q, Sqlite, SqliteArguments<'q>> {
    args.iter().fold(sqlx::query(sql), |q, arg| match arg {
        Value::Int(v) => q.bind(*v),
        Value::Text(v) => q.bind(v.clone()),
    })
}

fn decode(row: &SqliteRow) -> Result<Vec<Value>, sqlx::Error> {
    (0..row.len())
        .map(|i| {
            let raw = row.try_get_raw(i)?;
            if raw.is_null() {
                return Ok(Value::Text(None));
            }
            let integer = raw.type_info().name() == "INTEGER";
            Ok(if integer {
                Value::Int(row.try_get_unchecked(i)?)
            } else {
                Value::Text(row.try_get_unchecked(i)?)
            })
        })
        .collect()
}
