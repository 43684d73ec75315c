//! Rows on their way into the log: laid out, in their producer's order, without duplicates, within the
//! memory that tails have.
//!
//! Owns the order of these steps. What a record looks like is `record`'s, when it is durable the log's
//! thread's.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use catalog::Oid;
use tokio::sync::{OwnedRwLockReadGuard, oneshot};

use super::dedup::{self, Passed};
use super::head::{DbHead, Lsn, TableHead};
use super::line::Turn;
use super::position::Positions;
use super::record::{Encoded, Part};
use super::wal::{self, Append, Request};
use super::{Stream, streaming_table, tail};
use crate::error::{Error, Result, SqlState};

/// An append is encoded off the connection's thread from this size on.
const ENCODE_INLINE: usize = 256 * 1024;

/// What is known of where the rows of an append come from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// The position of their source after them, stored in their record.
    pub source: &'a [u8],
    /// The longest time to wait for room; the log's own where there is none.
    pub wait: Option<Duration>,
}

/// What an append did.
#[derive(Debug, Clone, Copy)]
pub struct Appended {
    /// Position of its last row: the commit token.
    pub lsn: Lsn,
    /// Rows that were there already and are not stored again.
    pub duplicates: u64,
}

/// Makes rows of the server's own tables that say what became of an append, given how many of its rows
/// are duplicates. They are stored in its record, after its rows.
pub type Receipt<'a> = Box<dyn Fn(u64) -> Result<Vec<(Oid, Vec<RecordBatch>)>> + Send + Sync + 'a>;

impl Stream {
    /// Stores rows of streaming tables, all or none, each in its table's visible columns; of those
    /// that a table has already, by its [`DedupSpec`](super::DedupSpec), it keeps what it has. They are durable and
    /// visible on return; the position of the last row is the commit token.
    ///
    /// # Errors
    /// `53400` when the tail stays full, `53200` when keys do not fit in memory, `53100` / `58030`
    /// when the log cannot be written.
    pub async fn append(&self, rows: Vec<(Oid, Vec<RecordBatch>)>) -> Result<Lsn> {
        Ok(self.append_in_turn(rows, Turn::default()).await?.lsn)
    }

    /// [`Self::append`] of a producer that does not wait for one append before it begins the next.
    ///
    /// # Errors
    /// `57014` when an append before it in the producer's line failed.
    pub async fn append_in_turn(
        &self,
        rows: Vec<(Oid, Vec<RecordBatch>)>,
        turn: Turn,
    ) -> Result<Appended> {
        self.append_from(rows, Origin::default(), turn, None).await
    }

    /// [`Self::append_in_turn`] with what is known of where the rows come from, and with rows that
    /// can be made only when it is known what becomes of those. Where a source stands
    /// ([`Positions::to_bytes`]) is stored even when there are no rows.
    ///
    /// Dropping the future leaves open whether the rows are stored: a source that goes on after that
    /// must wait for its end.
    pub async fn append_from(
        &self,
        rows: Vec<(Oid, Vec<RecordBatch>)>,
        origin: Origin<'_>,
        mut turn: Turn,
        receipt: Option<Receipt<'_>>,
    ) -> Result<Appended> {
        let head = self.head();
        let source = origin.source;
        let wait = origin.wait.unwrap_or(self.options.append_wait);
        let own = |duplicates: u64| match &receipt {
            Some(receipt) => sized_parts(&head, receipt(duplicates)?),
            None => Ok(Vec::new()),
        };
        let mut parts = sized_parts(&head, rows)?;
        let receipts = own(0)?;
        let own_parts = receipts.len();
        parts.extend(receipts);
        let mut bytes: usize = parts.iter().map(|(_, size)| size).sum();
        let positions = Positions::read(source)?;
        if parts.is_empty() && positions.is_none() {
            turn.come().await?;
            turn.over();
            return Ok(Appended {
                lsn: self.head().visible,
                duplicates: 0,
            });
        }
        let asked = self.gates.ask(&parts).await?;
        let mut encoded = self.encode(&parts, source, bytes).await?;
        // memory is taken in order too: what came later must not hold what came first up
        turn.come().await?;
        // only now: who waits for its turn must not keep one before it from passing
        let _gates = self.pass(&parts).await?;
        if self.conform_again(&mut parts)? {
            bytes = parts.iter().map(|(_, size)| size).sum();
            encoded = self.encode(&parts, source, bytes).await?;
        }
        let mut reserved = Vec::with_capacity(parts.len());
        let Ok(Some(mut memory)) = tokio::time::timeout(wait, self.core.reserve(bytes)).await
        else {
            return Err(tail_full());
        };
        let mut passed = Passed::default();
        if !asked.is_empty() {
            passed = Box::pin(dedup::pass(self, asked, wait)).await?;
        }
        let duplicates = passed.duplicates;
        if duplicates > 0 {
            let receipts = parts.split_off(parts.len() - own_parts);
            parts = passed.rest(parts)?;
            if !receipts.is_empty() {
                parts.extend(own(duplicates)?);
            }
            if parts.is_empty() && source.is_empty() {
                // the rows that these repeat may be on their way still
                drop((passed, memory));
                turn.over();
                let lsn = self.settled().await?;
                return Ok(Appended { lsn, duplicates });
            }
            bytes = parts.iter().map(|(_, size)| size).sum();
            encoded = self.encode(&parts, source, bytes).await?;
        }
        for (part, size) in parts {
            let share = memory.split(memory.num_permits().min(size / 1024));
            reserved.push((part, share));
        }
        if let Some((_, Some(last))) = reserved.last_mut() {
            last.merge(memory);
        } else if let Some((_, last)) = reserved.last_mut() {
            *last = Some(memory);
        }
        let (reply, answer) = oneshot::channel();
        let append = Append {
            encoded,
            parts: reserved,
            source: positions,
            reply,
        };
        let request = Request::Append(Box::new(append));
        self.wal.send(request).await.map_err(|_| wal::stopped())?;
        passed.entered();
        turn.over();
        let lsn = answer.await.map_err(|_| wal::stopped())??;
        Ok(Appended { lsn, duplicates })
    }

    /// Waits until everything that is in the log's queue now is durable and visible.
    pub(super) async fn settled(&self) -> Result<Lsn> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Barrier(reply);
        self.wal.send(request).await.map_err(|_| wal::stopped())?;
        answer.await.map_err(|_| wal::stopped())?
    }

    /// Keeps the columns of the rows' tables as they are until the guards are dropped.
    async fn pass(&self, parts: &[(Part, usize)]) -> Result<Vec<OwnedRwLockReadGuard<()>>> {
        let mut oids: Vec<Oid> = parts.iter().map(|(part, _)| part.oid).collect();
        // everybody takes several in the same order
        oids.sort_unstable();
        oids.dedup();
        let mut gates = Vec::with_capacity(oids.len());
        for oid in oids {
            let gate = Arc::clone(&self.owned(oid)?.gate);
            gates.push(gate.read_owned().await);
        }
        Ok(gates)
    }

    /// Gives rows the columns that their table has got since they were looked at; true if one had.
    fn conform_again(&self, parts: &mut [(Part, usize)]) -> Result<bool> {
        let head = self.head();
        let mut changed = false;
        for (rows, size) in parts {
            let table = streaming_table(&head, rows.oid)?;
            let same = |b: &RecordBatch| b.schema_ref() == &table.schema;
            if rows.batches.iter().all(same) {
                continue;
            }
            *rows = part(table, std::mem::take(&mut rows.batches))?;
            *size = rows.batches.iter().map(tail::held_bytes).sum();
            changed = true;
        }
        Ok(changed)
    }

    async fn encode(
        &self,
        parts: &[(Part, usize)],
        source: &[u8],
        bytes: usize,
    ) -> Result<Encoded> {
        let only: Vec<Part> = parts.iter().map(|(part, _)| part.clone()).collect();
        if bytes <= ENCODE_INLINE {
            return Encoded::new(&only, source);
        }
        let source = source.to_vec();
        match tokio::task::spawn_blocking(move || Encoded::new(&only, &source)).await {
            Ok(encoded) => encoded,
            Err(e) => Err(Error::Internal(format!("encoding rows failed: {e}"))),
        }
    }
}

/// True for the refusal of an append that found no room: the client may try again later.
pub fn is_tail_full(e: &Error) -> bool {
    e.state() == SqlState::CONFIGURATION_LIMIT_EXCEEDED
}

fn tail_full() -> Error {
    Error::refused(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        "too many rows wait to be written to storage",
    )
    .with_hint("send the rows again later")
}

/// Parts that hold rows, with their sizes.
fn sized_parts(head: &DbHead, rows: Vec<(Oid, Vec<RecordBatch>)>) -> Result<Vec<(Part, usize)>> {
    let mut parts = Vec::with_capacity(rows.len());
    for (oid, batches) in rows {
        let part = part(streaming_table(head, oid)?, batches)?;
        if part.rows > 0 {
            let size = part.batches.iter().map(tail::held_bytes).sum();
            parts.push((part, size));
        }
    }
    Ok(parts)
}

fn part(table: &TableHead, batches: Vec<RecordBatch>) -> Result<Part> {
    let batches = batches
        .into_iter()
        .filter(|batch| batch.num_rows() > 0)
        .map(|batch| tail::compact(tail::conform(&batch, &table.schema)?))
        .collect::<Result<Vec<_>>>()?;
    let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    Ok(Part {
        oid: table.oid,
        batches,
        rows,
    })
}
