//! `COPY t [(columns)] FROM STDIN` and `COPY t | (query) TO STDOUT`, with PostgreSQL's options.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use catalog::{Privilege, Relation, RelationKind};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast::{
    CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget, Ident, SelectItem,
    TableFactor, TableWithJoins,
};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::ingest::{Delivery, Sieve};
use super::{CopySink, Outcome, Run, ingest, query, rows};
use crate::decode::BadRows;
use crate::dialect::words::{fold, parts};
use crate::engine::keys::RequestKey;
use crate::engine::scope::{Scope, bound};
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::session::Session;
use crate::stream::letters::Piece;
use crate::tasks::{self, AbortOnDrop};
use crate::types;
use crate::values::{Columns, CopyFormat, CopyOptions, Decoder, Encoder, Header};

/// Decoded batches of an ordinary table that may wait for the writer.
const QUEUE: usize = 4;

/// Starts a copy in or out.
pub async fn execute(
    run: &Run,
    source: &CopySource,
    to: bool,
    target: &CopyTarget,
    options: &[CopyOption],
    legacy: &[CopyLegacyOption],
) -> Result<Outcome> {
    match (to, target) {
        (true, CopyTarget::Stdout) | (false, CopyTarget::Stdin) => {}
        _ => {
            return Err(Error::unsupported(
                "COPY to and from server files and programs is not supported",
                "use COPY … FROM STDIN or TO STDOUT; in psql, \\copy",
            ));
        }
    }
    if to {
        copy_out(run, source, options, legacy).await
    } else {
        copy_in(run, source, options, legacy)
    }
}

async fn copy_out(
    run: &Run,
    source: &CopySource,
    options: &[CopyOption],
    legacy: &[CopyLegacyOption],
) -> Result<Outcome> {
    let query = match source {
        CopySource::Query(query) => bound((**query).clone())?,
        CopySource::Table {
            table_name,
            columns,
        } => {
            let relation = TableFactor::Table {
                name: table_name.clone(),
                alias: None,
                args: None,
                with_hints: Vec::new(),
                version: None,
                with_ordinality: false,
                partitions: Vec::new(),
                json_path: None,
                sample: None,
                index_hints: Vec::new(),
            };
            let items = match columns.is_empty() {
                true => vec![SelectItem::Wildcard(Default::default())],
                false => columns
                    .iter()
                    .map(|c| {
                        SelectItem::UnnamedExpr(datafusion::sql::sqlparser::ast::Expr::Identifier(
                            c.clone(),
                        ))
                    })
                    .collect(),
            };
            query::select(
                items,
                vec![TableWithJoins {
                    relation,
                    joins: Vec::new(),
                }],
                None,
            )?
        }
    };
    let Outcome::Rows { schema, stream, .. } = query::execute(run, &query).await? else {
        return Err(Error::Internal("a query gave no rows".to_owned()));
    };
    let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    let options = understand(run, options, legacy, &names)?;
    let binary = options.format == CopyFormat::Binary;
    let count = Arc::new(AtomicU64::new(0));
    let encoder = Encoder::new(options, Arc::clone(&schema))?;
    let stream = encoded(encoder, stream, Arc::clone(&count)).boxed();
    Ok(Outcome::CopyOut {
        binary,
        columns: schema.fields().len(),
        stream,
        rows: count,
    })
}

/// One row per item, as clients of PostgreSQL expect it.
fn encoded(
    encoder: Encoder,
    stream: SendableRecordBatchStream,
    count: Arc<AtomicU64>,
) -> impl futures::Stream<Item = Result<Bytes>> {
    struct State {
        encoder: Encoder,
        stream: SendableRecordBatchStream,
        /// Goes out in front of the first row, or of the trailer: clients read it from one message.
        head: Vec<u8>,
        done: bool,
    }
    let mut head = Vec::new();
    let mut encoder = encoder;
    encoder.start(&mut head);
    let state = State {
        encoder,
        stream,
        head,
        done: false,
    };
    let blocks = futures::stream::unfold(state, move |mut state| {
        let count = Arc::clone(&count);
        async move {
            if state.done {
                return None;
            }
            let mut pieces: Vec<Result<Bytes>> = Vec::new();
            match state.stream.next().await {
                Some(Ok(batch)) => {
                    match encode_batch(&mut state.encoder, &mut state.head, &batch) {
                        Ok(encoded) => {
                            count.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                            pieces.extend(encoded.into_iter().map(Ok));
                        }
                        Err(e) => {
                            state.done = true;
                            pieces.push(Err(e));
                        }
                    }
                }
                Some(Err(e)) => {
                    state.done = true;
                    pieces.push(Err(e.into()));
                }
                None => {
                    state.done = true;
                    let mut out = std::mem::take(&mut state.head);
                    state.encoder.finish(&mut out);
                    if !out.is_empty() {
                        pieces.push(Ok(out.into()));
                    }
                }
            }
            Some((futures::stream::iter(pieces), state))
        }
    });
    blocks.flatten()
}

fn encode_batch(
    encoder: &mut Encoder,
    head: &mut Vec<u8>,
    batch: &RecordBatch,
) -> Result<Vec<Bytes>> {
    let columns = encoder.prepare(batch)?;
    let mut pieces = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut out = std::mem::take(head);
        encoder.row(&columns, row, &mut out)?;
        pieces.push(out.into());
    }
    Ok(pieces)
}

fn copy_in(
    run: &Run,
    source: &CopySource,
    options: &[CopyOption],
    legacy: &[CopyLegacyOption],
) -> Result<Outcome> {
    let CopySource::Table {
        table_name,
        columns,
    } = source
    else {
        return Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            "COPY FROM needs a table",
        ));
    };
    let (schema, name) = run.scope.split_name(&parts(table_name))?;
    let relation = ingest::target(&run.scope, &schema, &name)?;
    privileges::check_relation(
        &run.scope.catalog,
        &run.scope.caller.role,
        relation,
        Privilege::Insert,
    )?;
    run.scope.touch(relation.oid);
    let taken = taken_schema(relation, columns)?;
    let names: Vec<String> = taken.fields().iter().map(|f| f.name().clone()).collect();
    let options = understand(run, options, legacy, &names)?;
    let sieve = Sieve::new(&run.scope, relation, BadRows::Refuse)?;
    let binary = options.format == CopyFormat::Binary;
    let decoder = Decoder::new(options, taken)?;
    let session = run.session()?;
    let key = session.idempotency_key().map(|key| {
        let mut hash = Sha256::new();
        hash.update((run.statement.text.len() as u64).to_le_bytes());
        hash.update(run.statement.text.as_bytes());
        (key, hash)
    });
    if key.is_some() && relation.kind != RelationKind::StreamingTable {
        return Err(ingest::no_keys(relation));
    }
    Ok(Outcome::CopyIn(Box::new(Sink {
        scope: Arc::clone(&run.scope),
        session,
        relation: relation.clone(),
        columns: names.len(),
        binary,
        decoder: match sieve.bad_rows() {
            BadRows::Collect => decoder.collecting(),
            BadRows::Refuse => decoder,
        },
        sieve,
        kept: Vec::new(),
        bytes: 0,
        writer: None,
        rows: 0,
        key,
    })))
}

fn taken_schema(relation: &Relation, columns: &[Ident]) -> Result<SchemaRef> {
    let wanted: Vec<String> = match columns.is_empty() {
        true => relation
            .columns
            .iter()
            .filter(|c| c.generated.is_none())
            .map(|c| c.name.clone())
            .collect(),
        false => columns.iter().map(fold).collect(),
    };
    let mut fields = Vec::new();
    for name in &wanted {
        match relation.columns.iter().find(|c| c.name == *name) {
            Some(c) if c.generated.is_some() => return Err(super::write::generated_always(name)),
            Some(c) => fields.push(types::field(name, &c.sql_type, true)),
            None => {
                return Err(Error::refused(
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "column \"{name}\" of relation \"{}\" does not exist",
                        relation.name
                    ),
                ));
            }
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Takes the data; rows of a streaming table are kept until the end, so that all or none are stored;
/// those of an ordinary table go to Parquet as they come and are committed at the end.
struct Sink {
    scope: Arc<Scope>,
    session: Arc<Session>,
    relation: Relation,
    columns: usize,
    binary: bool,
    decoder: Decoder,
    sieve: Sieve,
    kept: Vec<RecordBatch>,
    bytes: usize,
    writer: Option<Writer>,
    rows: u64,
    /// The session's idempotency key, and what makes the copy the same: its text and data.
    key: Option<(String, Sha256)>,
}

struct Writer {
    queue: mpsc::Sender<Result<RecordBatch>>,
    done: AbortOnDrop<Result<u64>>,
}

#[async_trait::async_trait]
impl CopySink for Sink {
    fn binary(&self) -> bool {
        self.binary
    }

    fn columns(&self) -> usize {
        self.columns
    }

    async fn feed(&mut self, data: Bytes) -> Result<()> {
        if let Some((_, hash)) = &mut self.key {
            hash.update(&data);
        }
        for piece in self.decoder.feed(&data)? {
            self.take(piece).await?;
        }
        self.sieve.letters.append(self.decoder.take_letters())
    }

    async fn finish(mut self: Box<Self>) -> Result<u64> {
        if let Some(piece) = self.decoder.finish()? {
            self.take(piece).await?;
        }
        let mut letters = std::mem::take(&mut self.sieve.letters);
        letters.append(self.decoder.take_letters())?;
        let lsn = match self.writer.take() {
            Some(Writer { queue, done }) => {
                drop(queue);
                match done.await {
                    Ok(written) => written?,
                    Err(e) => {
                        return Err(Error::Internal(format!("the copy's writer failed: {e}")));
                    }
                };
                self.scope.engine.stream.head().visible
            }
            None => {
                let rows = std::mem::take(&mut self.kept);
                let delivery = Delivery {
                    key: match self.key.take() {
                        Some((key, data)) => Some(RequestKey::of_hash(&key, data)?),
                        None => None,
                    },
                    ..Delivery::by("copy")
                };
                let stored =
                    ingest::append(&self.scope, &self.relation, rows, letters, delivery).await?;
                self.rows = stored.accepted;
                ingest::tell(&self.session, &stored);
                stored.lsn
            }
        };
        self.session
            .with_settings(|s| s.set_last_token(&super::token::of(lsn)));
        self.session.with_transaction(|t| t.note_write("COPY"));
        Ok(self.rows)
    }
}

impl Sink {
    async fn take(&mut self, piece: Piece) -> Result<()> {
        for batch in self.sieve.sift(&piece)? {
            self.keep(batch).await?;
        }
        Ok(())
    }

    async fn keep(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        if self.relation.kind == RelationKind::StreamingTable {
            self.bytes += batch.get_array_memory_size();
            if self.bytes > self.scope.engine.config.tail_bytes / 2 {
                return Err(Error::refused(
                    SqlState::OUT_OF_MEMORY,
                    "the rows of one COPY into a streaming table do not fit in memory",
                )
                .with_hint("copy them in several pieces"));
            }
            self.kept.push(batch);
            return Ok(());
        }
        let writer = self
            .writer
            .get_or_insert_with(|| start_writer(&self.scope, &self.relation));
        // a writer that ended early tells why at the end
        let _ = writer.queue.send(Ok(batch)).await;
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // a copy that was given up commits nothing: the writer sees the error instead of an end
        if let Some(writer) = &self.writer {
            let _ = writer.queue.try_send(Err(rows::canceled()));
        }
    }
}

fn start_writer(scope: &Arc<Scope>, relation: &Relation) -> Writer {
    let (queue, batches) = mpsc::channel(QUEUE);
    let (engine, oid) = (Arc::clone(&scope.engine), relation.oid);
    let done = tasks::spawn("copy writer", async move {
        let batches = tokio_stream::wrappers::ReceiverStream::new(batches);
        engine.stream.lake_append(oid, batches).await
    });
    Writer {
        queue,
        done: AbortOnDrop::new(done),
    }
}

fn understand(
    run: &Run,
    options: &[CopyOption],
    legacy: &[CopyLegacyOption],
    names: &[String],
) -> Result<CopyOptions> {
    let format = options.iter().find_map(|o| match o {
        CopyOption::Format(name) => Some(name.value.to_lowercase()),
        _ => None,
    });
    let format = format.or_else(|| {
        legacy.iter().find_map(|o| match o {
            CopyLegacyOption::Binary => Some("binary".to_owned()),
            CopyLegacyOption::Csv(_) => Some("csv".to_owned()),
            _ => None,
        })
    });
    let format = match format.as_deref() {
        None | Some("text") => CopyFormat::Text,
        Some("csv") => CopyFormat::Csv,
        Some("binary") => CopyFormat::Binary,
        Some(other) => {
            return Err(Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("COPY format \"{other}\" not recognized"),
            ));
        }
    };
    let mut copy = CopyOptions::new(format);
    copy.max_row = run.scope.engine.config.max_body;
    if let Ok(zone) = run.scope.caller.time_zone.parse() {
        copy.style.time_zone = zone;
    }
    for option in options {
        match option {
            CopyOption::Format(_) => {}
            CopyOption::Freeze(_) => {
                return Err(Error::unsupported(
                    "COPY FREEZE is not supported",
                    "leave it out",
                ));
            }
            CopyOption::Delimiter(c) => copy.delimiter = byte(*c, "delimiter")?,
            CopyOption::Null(text) => copy.null = text.clone(),
            CopyOption::Header(on) => {
                copy.header = if *on { Header::Present } else { Header::None }
            }
            CopyOption::Quote(c) => {
                let quote = byte(*c, "quote")?;
                if copy.escape == copy.quote {
                    copy.escape = quote;
                }
                copy.quote = quote;
            }
            CopyOption::Escape(c) => copy.escape = byte(*c, "escape")?,
            CopyOption::ForceQuote(columns) => copy.force_quote = places(columns, names)?,
            CopyOption::ForceNotNull(columns) => copy.force_not_null = places(columns, names)?,
            CopyOption::ForceNull(columns) => copy.force_null = places(columns, names)?,
            CopyOption::Encoding(name) => utf8(name)?,
        }
    }
    for option in legacy {
        match option {
            CopyLegacyOption::Binary => {}
            CopyLegacyOption::Delimiter(c) => copy.delimiter = byte(*c, "delimiter")?,
            CopyLegacyOption::Null(text) => copy.null = text.clone(),
            CopyLegacyOption::Csv(parts) => {
                for part in parts {
                    match part {
                        CopyLegacyCsvOption::Header => copy.header = Header::Present,
                        CopyLegacyCsvOption::Quote(c) => copy.quote = byte(*c, "quote")?,
                        CopyLegacyCsvOption::Escape(c) => copy.escape = byte(*c, "escape")?,
                        CopyLegacyCsvOption::ForceQuote(columns) => {
                            copy.force_quote = places(columns, names)?
                        }
                        CopyLegacyCsvOption::ForceNotNull(columns) => {
                            copy.force_not_null = places(columns, names)?
                        }
                    }
                }
            }
            other => {
                return Err(Error::unsupported(
                    format!("COPY option {other} is not supported"),
                    "use COPY … WITH (FORMAT …)",
                ));
            }
        }
    }
    copy.check()?;
    Ok(copy)
}

fn byte(c: char, what: &str) -> Result<u8> {
    u8::try_from(c).ok().filter(u8::is_ascii).ok_or_else(|| {
        Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("COPY {what} must be a single one-byte character"),
        )
    })
}

fn utf8(name: &str) -> Result<()> {
    match name.to_lowercase().replace(['-', '_'], "").as_str() {
        "utf8" | "unicode" => Ok(()),
        _ => Err(Error::unsupported(
            format!("COPY encoding \"{name}\" is not supported"),
            "use UTF8",
        )),
    }
}

fn places(columns: &[Ident], names: &[String]) -> Result<Columns> {
    let places = columns.iter().map(|c| {
        let name = fold(c);
        names.iter().position(|n| *n == name).ok_or_else(|| {
            Error::refused(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" is not among the copied columns"),
            )
        })
    });
    Ok(Columns::Only(places.collect::<Result<_>>()?))
}
