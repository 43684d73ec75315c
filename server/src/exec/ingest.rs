//! Rows into a table: the end of INSERT, COPY and the ingest doors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::{Oid, Privilege, Relation, RelationKind};

use super::evolve::{self, Prepared};
use super::relations;
use super::write::Intake;
use crate::decode::{BadRows, Decoded};
use crate::engine::activity::now_micros;
use crate::engine::keys::{Answer, Begun, RequestKey};
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::session::Session;
use crate::stream::head::Lsn;
use crate::stream::letters::{self, Addressee, Letters, Piece, Raw, Raws};
use crate::stream::line::Turn;
use crate::stream::{Appended, Origin, Receipt, Stream, internal};
use crate::types;

/// The table of that name, if rows can be put into it.
///
/// # Errors
/// 42P01, 3F000, 42809; 0A000 for a temporary table of another session.
pub fn target<'a>(scope: &'a Scope, schema: &str, table: &str) -> Result<&'a Relation> {
    let schema = scope.named_schema(schema)?;
    let Some(relation) = scope.catalog.relation(schema, table) else {
        if crate::system::SCHEMAS.contains(&schema) {
            return Err(Error::denied("table", table));
        }
        if scope.catalog.schema(schema).is_none() {
            return Err(Error::refused(
                SqlState::INVALID_SCHEMA_NAME,
                format!("schema \"{schema}\" does not exist"),
            ));
        }
        let shown = if schema == scope.caller.schema {
            table.to_owned()
        } else {
            format!("{schema}.{table}")
        };
        return Err(Error::undefined_table(&shown));
    };
    match relation.kind {
        RelationKind::Table | RelationKind::StreamingTable => Ok(relation),
        RelationKind::ExternalTable => Err(relations::cannot_change(relation)),
        RelationKind::View | RelationKind::MaterializedView => Err(Error::refused(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot change view \"{table}\""),
        )
        .with_hint("change the table it reads")),
    }
}

/// Refuses (42501) who may not add rows: without INSERT, or the table's write key.
pub fn check_insert(scope: &Scope, relation: &Relation) -> Result<()> {
    if scope.caller.opened == Some(relation.oid) {
        return Ok(());
    }
    privileges::check_relation(
        &scope.catalog,
        &scope.caller.role,
        relation,
        Privilege::Insert,
    )
}

/// The columns rows may bring: all but the generated ones; those with a default say so, and the schema
/// says what becomes of others.
pub fn accepted_schema(relation: &Relation) -> SchemaRef {
    let evolution = evolve::option(relation);
    let fields: Vec<_> = relation
        .columns
        .iter()
        .filter(|c| c.generated.is_none())
        .filter(|c| evolution.is_none() || c.name != types::RESCUED)
        .map(|c| {
            let field = types::field(&c.name, &c.sql_type, c.nullable || c.default.is_some());
            match &c.default {
                None => field,
                Some(text) => {
                    let mut metadata: HashMap<_, _> = field.metadata().clone();
                    metadata.insert(types::DEFAULT_KEY.to_owned(), text.clone());
                    field.with_metadata(metadata)
                }
            }
        })
        .collect();
    let schema = Schema::new(fields);
    Arc::new(match evolution {
        None => schema,
        Some(evolution) => evolution.marking(schema),
    })
}

/// What becomes of bad rows of a table: what the table says, or else what is usual at the door. An
/// ordinary table has no dead letters, since they could not be stored with its rows in one step.
pub fn bad_rows(relation: &Relation, usual: BadRows) -> BadRows {
    if relation.kind != RelationKind::StreamingTable {
        return BadRows::Refuse;
    }
    match relation.options.get("on_violation").map(String::as_str) {
        Some("dead_letter") => BadRows::Collect,
        Some(_) => BadRows::Refuse,
        None => usual,
    }
}

/// How rows are to be stored.
#[derive(Debug, Default)]
pub struct Delivery {
    /// The door they came by, as dead letters name it: `http`, `kafka`, …
    pub door: &'static str,
    /// The position of their source after them, stored in their record.
    pub source: Vec<u8>,
    /// The longest time to wait for room in the tail.
    pub wait: Option<Duration>,
    /// Their turn among what one producer sends.
    pub turn: Turn,
    /// The client's key: what was stored under it is answered again.
    pub key: Option<RequestKey>,
}

impl Delivery {
    /// By a door, with nothing special about it.
    pub fn by(door: &'static str) -> Self {
        Self {
            door,
            ..Self::default()
        }
    }
}

/// What became of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Rows stored.
    pub accepted: u64,
    /// Rows that became dead letters.
    pub rejected: u64,
    /// Rows that were there already.
    pub duplicate: u64,
    /// The position that a later read must contain to see them.
    pub lsn: Lsn,
    /// They were stored before under the same key; this is what was answered then.
    pub again: bool,
}

/// A row that became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it stood.
    pub position: Option<String>,
    /// The code of its refusal.
    pub state: SqlState,
    /// What is wrong with it.
    pub message: String,
}

/// Stores decoded rows; durable and visible on return. Their bad rows become dead letters in the same
/// record, of which it tells, or refuse them all: what `usual` says where the table says nothing. They
/// are stored when their turn has come.
///
/// # Errors
/// 42501 without INSERT; what `Intake` and the log report.
pub async fn store(
    scope: &Arc<Scope>,
    schema: &str,
    table: &str,
    rows: Decoded,
    usual: BadRows,
    delivery: Delivery,
) -> Result<(Stored, Vec<Refused>)> {
    let relation = target(scope, schema, table)?;
    check_insert(scope, relation)?;
    scope.touch(relation.oid);
    let pieces = rows.pieces;
    let batches = pieces.iter().map(|p| p.batch.clone()).collect();
    let bad = bad_rows(relation, usual);
    let (scope, prepared) = evolve::prepare(scope, relation, batches, bad).await?;
    let scope = &scope;
    let relation = target(scope, schema, table)?;
    let mut sieve = Sieve::new(scope, relation, usual)?;
    sieve.letters = rows.letters;
    let mut good = Vec::with_capacity(pieces.len());
    for (piece, prepared) in pieces.iter().zip(prepared) {
        good.append(&mut sieve.sift_prepared(piece, prepared)?);
    }
    let refused = sieve.letters.iter().map(|letter| Refused {
        position: letter.raw.position.clone(),
        state: letter.state,
        message: letter.message.clone(),
    });
    let refused = refused.collect();
    let stored = append(scope, relation, good, sieve.letters, delivery).await?;
    Ok((stored, refused))
}

/// Rows of a source as its table stores them, all or none.
///
/// # Errors
/// What `Intake::apply` and the change of columns report.
pub fn accept(
    scope: &Arc<Scope>,
    relation: &Relation,
    batches: Vec<RecordBatch>,
) -> Result<Vec<RecordBatch>> {
    if evolve::option(relation).is_none() {
        let intake = Intake::new(scope, relation)?;
        return batches.iter().map(|b| intake.apply(b)).collect();
    }
    let accepted = evolve::accept(scope, relation, batches);
    tokio::runtime::Handle::current().block_on(accepted)
}

/// What a source stores at once: rows that were accepted, and letters of those that were not.
pub fn parts(
    scope: &Scope,
    relation: &Relation,
    rows: Vec<RecordBatch>,
    letters: &Letters,
    door: &str,
) -> Result<Vec<(Oid, Vec<RecordBatch>)>> {
    let mut parts = vec![(relation.oid, rows)];
    if !letters.is_empty() {
        let batch = letters::batch(&addressee(scope, relation, door), letters, now_micros())?;
        parts.push((internal::DEAD_LETTERS, vec![batch]));
    }
    Ok(parts)
}

/// Stores the parts and where their source stands then, all or none.
///
/// # Errors
/// 53400 when there is no room within `wait`; nothing was stored then.
pub async fn append_from(
    stream: &Stream,
    parts: Vec<(Oid, Vec<RecordBatch>)>,
    source: &[u8],
    wait: Duration,
) -> Result<Appended> {
    let wait = Some(wait);
    let origin = Origin { source, wait };
    let appended = stream
        .append_from(parts, origin, Turn::default(), None)
        .await?;
    crate::metrics::duplicates(appended.duplicates);
    Ok(appended)
}

/// Keeps the rows a table takes, and letters of those it does not.
pub(super) struct Sieve {
    intake: Intake,
    bad: BadRows,
    /// Of all rows so far.
    pub(super) letters: Letters,
}

impl Sieve {
    /// Before a table, at a door where `usual` becomes of bad rows.
    pub(super) fn new(scope: &Arc<Scope>, relation: &Relation, usual: BadRows) -> Result<Self> {
        Ok(Self {
            intake: Intake::new(scope, relation)?,
            bad: bad_rows(relation, usual),
            letters: Letters::default(),
        })
    }

    /// What becomes of bad rows.
    pub(super) fn bad_rows(&self) -> BadRows {
        self.bad
    }

    /// The rows of a piece that the table takes.
    ///
    /// # Errors
    /// The first bad row's, when bad rows are refused.
    pub(super) fn sift(&mut self, piece: &Piece) -> Result<Vec<RecordBatch>> {
        self.sift_prepared(piece, Prepared::whole(piece.batch.clone()))
    }

    /// As [`Self::sift`], for rows of the piece that were brought into the table's columns.
    fn sift_prepared(&mut self, piece: &Piece, mut rows: Prepared) -> Result<Vec<RecordBatch>> {
        if self.bad == BadRows::Refuse {
            return Ok(vec![self.intake.apply(&rows.batch)?]);
        }
        for (row, why) in std::mem::take(&mut rows.bad) {
            let raw = self.raw(piece, row)?;
            self.letters.add(raw, &Error::Refused(Box::new(why)))?;
        }
        let sorted = self.intake.sort(&rows.batch)?;
        for (row, error) in sorted.bad {
            let raw = self.raw(piece, rows.given(row))?;
            self.letters.add(raw, &error)?;
        }
        Ok(sorted.good)
    }

    /// The bytes of a row as it came.
    fn raw(&self, piece: &Piece, row: usize) -> Result<Raw> {
        match &piece.raws {
            Raws::Rendered(first) => {
                let one = self.intake.readable(&piece.batch.slice(row, 1))?;
                Piece::arrow(one, first + row as u64).raw(0)
            }
            Raws::Cut { .. } | Raws::Each(_) => piece.raw(row),
        }
    }
}

/// Stores rows that passed the table's `Intake`, and letters of those that did not, in one record. They
/// are durable as the table's `acknowledge` says, and visible, on return.
///
/// # Errors
/// `40003` when they are stored, but not in the table's storage in time.
pub(super) async fn append(
    scope: &Scope,
    relation: &Relation,
    rows: Vec<RecordBatch>,
    letters: Letters,
    delivery: Delivery,
) -> Result<Stored> {
    if relation.kind != RelationKind::StreamingTable {
        return append_to_lake(scope, relation, rows, delivery).await;
    }
    let mut tables = vec![relation.oid];
    tables.extend((!letters.is_empty()).then_some(internal::DEAD_LETTERS));
    tables.extend(delivery.key.is_some().then_some(internal::KEYS));
    let stored = append_to_log(scope, relation, rows, letters, delivery).await?;
    if waits_for_storage(relation) {
        // also what was stored under a key before: its first writer may have gone without an answer
        scope.engine.stream.in_storage(&tables, stored.lsn).await?;
    }
    Ok(stored)
}

/// True when the table's writers are answered once its storage has their rows (`acknowledge = 'object'`).
pub(super) fn waits_for_storage(relation: &Relation) -> bool {
    relation
        .options
        .get("acknowledge")
        .is_some_and(|level| level == "object")
}

/// Rows for a streaming table.
async fn append_to_log(
    scope: &Scope,
    relation: &Relation,
    rows: Vec<RecordBatch>,
    letters: Letters,
    mut delivery: Delivery,
) -> Result<Stored> {
    let key = delivery.key.take();
    let mut record = Record {
        stream: Arc::clone(&scope.engine.stream),
        sent: rows.iter().map(|b| b.num_rows() as u64).sum(),
        rejected: letters.len() as u64,
        parts: vec![(relation.oid, rows)],
        delivery,
    };
    if !letters.is_empty() {
        let to = addressee(scope, relation, record.delivery.door);
        let batch = letters::batch(&to, &letters, now_micros())?;
        record.parts.push((internal::DEAD_LETTERS, vec![batch]));
    }
    match key {
        None => record.store(None).await,
        Some(key) => once(scope, relation, record, key).await,
    }
}

/// Rows for an ordinary table.
async fn append_to_lake(
    scope: &Scope,
    relation: &Relation,
    rows: Vec<RecordBatch>,
    delivery: Delivery,
) -> Result<Stored> {
    if delivery.key.is_some() {
        return Err(no_keys(relation));
    }
    let sent = rows.iter().map(|b| b.num_rows() as u64).sum();
    let stream = &scope.engine.stream;
    let mut turn = delivery.turn;
    turn.come().await?;
    if sent > 0 {
        let rows = futures::stream::iter(rows.into_iter().map(Ok));
        stream.lake_append(relation.oid, rows).await?;
    }
    turn.over();
    Ok(Stored {
        accepted: sent,
        rejected: 0,
        duplicate: 0,
        lsn: stream.head().visible,
        again: false,
    })
}

/// The refusal of a key for an ordinary table, whose rows do not go through the log.
pub(super) fn no_keys(relation: &Relation) -> Error {
    Error::unsupported(
        format!(
            "idempotency keys are not supported for table \"{}\"",
            relation.name
        ),
        "send the rows to a streaming table, or without a key",
    )
}

/// Stores the record of a key, unless that was done before.
async fn once(
    scope: &Scope,
    relation: &Relation,
    mut record: Record,
    key: RequestKey,
) -> Result<Stored> {
    let role = privileges::role(&scope.catalog, &scope.caller.role)?.oid;
    let table = relation.oid;
    match scope.engine.keys.begin(role, table, &key).await? {
        Begun::Again(answer) => {
            let mut turn = std::mem::take(&mut record.delivery.turn);
            turn.come().await?;
            turn.over();
            Ok(Stored::again(&answer))
        }
        // to its end, also when the client goes away: until it is known what became of it, the key must
        // not be free again
        Begun::First(ticket) => {
            relations::to_its_end("store once", async move {
                let at_micros = now_micros();
                let stored = record.store(Some((role, table, &key, at_micros))).await?;
                ticket.answer(stored.answer(at_micros));
                Ok(stored)
            })
            .await
        }
    }
}

impl Stored {
    fn answer(&self, at_micros: i64) -> Answer {
        Answer {
            accepted: self.accepted,
            rejected: self.rejected,
            duplicate: self.duplicate,
            lsn: self.lsn,
            at_micros,
        }
    }

    fn again(answer: &Answer) -> Self {
        Self {
            accepted: answer.accepted,
            rejected: answer.rejected,
            duplicate: answer.duplicate,
            lsn: answer.lsn,
            again: true,
        }
    }
}

/// What one append is made of.
struct Record {
    stream: Arc<Stream>,
    parts: Vec<(Oid, Vec<RecordBatch>)>,
    /// Rows for the table.
    sent: u64,
    rejected: u64,
    delivery: Delivery,
}

impl Record {
    /// Makes it durable and visible, with the row of its key.
    async fn store(self, key: Option<(Oid, Oid, &RequestKey, i64)>) -> Result<Stored> {
        let (sent, rejected) = (self.sent, self.rejected);
        let stored = |duplicate: u64, lsn: Lsn| Stored {
            accepted: sent - duplicate,
            rejected,
            duplicate,
            lsn,
            again: false,
        };
        let receipt = key.map(|(role, table, key, at_micros)| -> Receipt<'_> {
            Box::new(move |duplicate| {
                // its position is the token: the row comes last in the record
                let answer = stored(duplicate, Lsn::default()).answer(at_micros);
                let row = key.row(role, table, &answer)?;
                Ok(vec![(internal::KEYS, vec![row])])
            })
        });
        let Delivery {
            source, wait, turn, ..
        } = self.delivery;
        let origin = Origin {
            source: &source,
            wait,
        };
        let Appended { lsn, duplicates } = self
            .stream
            .append_from(self.parts, origin, turn, receipt)
            .await?;
        crate::metrics::duplicates(duplicates);
        Ok(stored(duplicates, lsn))
    }
}

/// Ends a statement that stored rows: its key is used up, and its client hears of what the tag of the
/// statement cannot say.
pub(super) fn tell(session: &Session, stored: &Stored) {
    session.forget_idempotency_key();
    if stored.again {
        session.warn(
            "the rows were stored before under this idempotency key and are not stored again",
            "set another key for other rows",
        );
    }
    let rejected = stored.rejected;
    if rejected > 0 {
        let rows = if rejected == 1 { "row" } else { "rows" };
        session.warn(
            format!("{rejected} {rows} did not fit the table and became dead letters"),
            "read them in weir.dead_letters",
        );
    }
}

fn addressee(scope: &Scope, relation: &Relation, door: &str) -> Addressee {
    let schema = scope.catalog.schema_by_oid(relation.schema);
    Addressee {
        oid: relation.oid,
        schema: schema.map(|s| s.name.clone()).unwrap_or_default(),
        name: relation.name.clone(),
        door: door.to_owned(),
    }
}
