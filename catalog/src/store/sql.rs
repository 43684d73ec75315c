//! The one implementation of [`Store`], over any SQL backend. Owns transactions and their order;
//! the statements that change objects are in `apply`, reading them back in `rows`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::audit_chain::hash;
use super::driver::{Driver, Mode, Row, Tx};
use super::rows::{self, to_json, to_word};
use super::{Store, apply};
use crate::{AuditRow, CatalogError, Change, LineageEdge, Oid, Snapshot};

/// No catalog operation may hold a statement longer than this, whatever the backend does.
const DEADLINE: Duration = Duration::from_secs(60);

/// A catalog in an SQL database.
#[derive(Debug)]
pub struct SqlStore<D> {
    driver: D,
    /// The newest state this process has seen, so that an unchanged catalog is not read again.
    last: Mutex<Option<Arc<Snapshot>>>,
}

impl<D: Driver> SqlStore<D> {
    pub(super) fn over(driver: D) -> Self {
        Self {
            driver,
            last: Mutex::new(None),
        }
    }

    fn remember(&self, snapshot: &Arc<Snapshot>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last
            .as_ref()
            .is_none_or(|l| l.generation < snapshot.generation)
        {
            *last = Some(Arc::clone(snapshot));
        }
    }

    fn remembered(&self, generation: i64) -> Option<Arc<Snapshot>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .filter(|s| s.generation == generation)
            .map(Arc::clone)
    }

    async fn load_now(&self) -> Result<Arc<Snapshot>, CatalogError> {
        let failed = failed("read the catalog");
        let mut tx = self.driver.begin(Mode::Read).await.map_err(failed)?;
        let generation = tx
            .fetch("SELECT value FROM counters WHERE name = 'generation'", &[])
            .await
            .map_err(failed)?;
        let generation = single(generation, "generation")?.int()?;
        if let Some(snapshot) = self.remembered(generation) {
            return Ok(snapshot);
        }
        let snapshot = Arc::new(rows::snapshot(&mut *tx, generation).await?);
        self.remember(&snapshot);
        Ok(snapshot)
    }

    async fn allocate_oid_now(&self) -> Result<Oid, CatalogError> {
        let failed = failed("allocate an object id");
        let mut tx = self.driver.begin(Mode::Write).await.map_err(failed)?;
        let oid = tx
            .fetch(
                "UPDATE counters SET value = value + 1 WHERE name = 'oid' RETURNING value",
                &[],
            )
            .await
            .map_err(failed)?;
        let oid = single(oid, "object id counter")?.oid()?;
        tx.commit().await.map_err(failed)?;
        Ok(oid)
    }

    async fn commit_now(&self, changes: &[Change]) -> Result<Arc<Snapshot>, CatalogError> {
        let failed = failed("commit a catalog transaction");
        let mut tx = self.driver.begin(Mode::Write).await.map_err(failed)?;
        // the counter's row is the lock that puts all catalog transactions in one order: what is
        // checked below stays true until the end
        let generation = tx
            .fetch(
                "UPDATE counters SET value = value + 1 WHERE name = 'generation' RETURNING value",
                &[],
            )
            .await
            .map_err(failed)?;
        let generation = single(generation, "generation")?.int()?;
        for change in changes {
            apply::apply(&mut *tx, change).await?;
        }
        let snapshot = Arc::new(rows::snapshot(&mut *tx, generation).await?);
        tx.commit().await.map_err(failed)?;
        self.remember(&snapshot);
        Ok(snapshot)
    }

    async fn append_audit_now(&self, rows: Vec<AuditRow>) -> Result<(), CatalogError> {
        let failed = failed("append to the audit log");
        let mut tx = self.driver.begin(Mode::Write).await.map_err(failed)?;
        let n = i64::try_from(rows.len()).map_err(|_| CatalogError::Corrupt {
            what: "audit batch length",
        })?;
        let head = tx
            .fetch(
                "UPDATE audit_head SET seq = seq + $1 WHERE id = 1 RETURNING seq, hash",
                &[n.into()],
            )
            .await
            .map_err(failed)?;
        let mut head = single(head, "audit head")?;
        let mut seq = head.int()? - n;
        let mut prev = head.text()?;
        for mut row in rows {
            seq += 1;
            row.seq = seq;
            row.prev_hash = prev;
            storable(&mut row);
            row.hash = hash(&row);
            insert_audit(&mut *tx, &row).await?;
            prev = row.hash;
        }
        tx.execute(
            "UPDATE audit_head SET hash = $1 WHERE id = 1",
            &[prev.into()],
        )
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn audit_now(&self, after: i64, limit: i64) -> Result<Vec<AuditRow>, CatalogError> {
        let failed = failed("read the audit log");
        let mut tx = self.driver.begin(Mode::Read).await.map_err(failed)?;
        let found = tx
            .fetch(rows::AUDIT, &[after.into(), limit.max(0).into()])
            .await
            .map_err(failed)?;
        found
            .into_iter()
            .map(|fields| rows::audit_row(&mut Row::new(fields, "audit row")))
            .collect()
    }

    async fn lineage_now(&self) -> Result<Vec<LineageEdge>, CatalogError> {
        let failed = failed("read lineage");
        let mut tx = self.driver.begin(Mode::Read).await.map_err(failed)?;
        rows::lineage(&mut *tx).await
    }
}

#[async_trait]
impl<D: Driver> Store for SqlStore<D> {
    async fn load(&self) -> Result<Arc<Snapshot>, CatalogError> {
        within("read the catalog", self.load_now()).await
    }

    async fn allocate_oid(&self) -> Result<Oid, CatalogError> {
        within("allocate an object id", self.allocate_oid_now()).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Arc<Snapshot>, CatalogError> {
        if changes.is_empty() {
            return self.load().await;
        }
        within("commit a catalog transaction", self.commit_now(&changes)).await
    }

    async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<(), CatalogError> {
        if rows.is_empty() {
            return Ok(());
        }
        within("append to the audit log", self.append_audit_now(rows)).await
    }

    async fn audit(&self, after: i64, limit: i64) -> Result<Vec<AuditRow>, CatalogError> {
        within("read the audit log", self.audit_now(after, limit)).await
    }

    async fn lineage(&self) -> Result<Vec<LineageEdge>, CatalogError> {
        within("read lineage", self.lineage_now()).await
    }

    async fn close(&self) {
        self.driver.close().await;
    }
}

/// Wraps a backend error with what was being done.
pub(super) fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> CatalogError + Copy {
    move |source| CatalogError::Store { action, source }
}

async fn within<T>(
    action: &'static str,
    work: impl Future<Output = Result<T, CatalogError>>,
) -> Result<T, CatalogError> {
    match tokio::time::timeout(DEADLINE, Box::pin(work)).await {
        Ok(done) => done,
        Err(_) => Err(failed(action)(sqlx::Error::PoolTimedOut)),
    }
}

fn single(rows: Vec<Vec<super::driver::Value>>, what: &'static str) -> Result<Row, CatalogError> {
    rows.into_iter()
        .next()
        .map(|fields| Row::new(fields, what))
        .ok_or(CatalogError::Corrupt { what })
}

/// An audit row is stored whatever a client sent: PostgreSQL's text has no NUL, so none is hashed.
fn storable(row: &mut AuditRow) {
    let texts = [
        &mut row.session,
        &mut row.door,
        &mut row.role,
        &mut row.command,
        &mut row.statement,
    ];
    for text in texts
        .into_iter()
        .chain(&mut row.objects)
        .chain(&mut row.sqlstate)
    {
        if text.contains('\0') {
            *text = text.replace('\0', "\u{fffd}");
        }
    }
}

async fn insert_audit(tx: &mut dyn Tx, row: &AuditRow) -> Result<(), CatalogError> {
    tx.execute(
        "INSERT INTO audit_log (seq, ended_at, session, door, role, command, statement, objects, \
         row_count, outcome, sqlstate, prev_hash, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        &[
            row.seq.into(),
            row.at_micros.into(),
            row.session.as_str().into(),
            row.door.as_str().into(),
            row.role.as_str().into(),
            row.command.as_str().into(),
            row.statement.as_str().into(),
            to_json(&row.objects)?.into(),
            row.rows.into(),
            to_word(&row.outcome)?.into(),
            row.sqlstate.clone().into(),
            row.prev_hash.as_str().into(),
            row.hash.as_str().into(),
        ],
    )
    .await
    .map_err(failed("append to the audit log"))?;
    Ok(())
}
