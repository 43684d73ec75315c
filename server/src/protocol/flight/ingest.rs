//! Rows by `DoPut`: batches go to the log as they come, several at a time.
//!
//! While groups of batches are checked and made durable the next is received and decoded. They enter
//! the log in the order they were sent. What waits is bounded; beyond it the client's stream is not
//! read, and HTTP/2 flow control holds the client.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use arrow_flight::PutResult;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use futures::stream::FuturesOrdered;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Answers;
use super::query::{only_statement, update};
use super::status::{malformed, status};
use crate::decode::Decoded;
use crate::engine::keys::RequestKey;
use crate::error::{Error, Result, SqlState};
use crate::protocol::arrow_stream::Batches;
use crate::protocol::backend::DataCalls;
use crate::protocol::buffers::{Buffers, Room};
use crate::protocol::credentials::Caller;
use crate::session::Receipt;
use crate::stream::letters::Piece;
use crate::stream::line::{Line, Turn};
use crate::tasks::{self, AbortOnDrop};
use crate::{metrics, types};

/// Groups being made durable at a time.
const IN_FLIGHT: usize = 3;
/// A smaller group is begun only when none is under way: small batches gather meanwhile.
const GROUP_BYTES: usize = 1 << 20;
/// Bytes that one idempotency key may stand for: they are stored in one piece.
const KEYED_BYTES: usize = 128 << 20;
/// Bytes that may wait for a free place before reading stops.
const WAITING_BYTES: usize = 32 << 20;

/// What is durable so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Progress {
    accepted: u64,
    rejected: u64,
    duplicate: u64,
    token: Option<String>,
}

impl Progress {
    fn add(&mut self, receipt: Receipt) {
        self.accepted += receipt.accepted;
        self.rejected += receipt.rejected;
        self.duplicate += receipt.duplicate;
        self.token = Some(receipt.token);
    }

    fn put_result(&self) -> PutResult {
        let text = json!({
            "accepted": self.accepted, "rejected": self.rejected,
            "duplicate": self.duplicate, "token": self.token,
        });
        PutResult {
            app_metadata: text.to_string().into(),
        }
    }
}

/// `DoPut` to `[schema, table]`. Answers carry the running totals and the newest token; each is sent
/// when its rows are durable and visible. Rows acknowledged before an error stay.
pub(super) async fn to_path(
    caller: Caller,
    buffers: &Buffers,
    path: &[String],
    batches: Batches,
) -> Result<Answers<PutResult>> {
    let [schema, table] = path else {
        return Err(malformed("a path is [schema, table]"));
    };
    // refuses what may not be written before any data is read
    caller.session.ingest_table(schema, table).await?;
    let target = Target {
        session: caller.session,
        schema: schema.clone(),
        table: table.clone(),
        buffers: buffers.clone(),
    };
    let (progress, seen) = watch::channel(Progress::default());
    let work = tasks::spawn("flight-ingest", async move {
        store(&target, batches, |p| {
            progress.send_replace(p.clone());
        })
        .await
    });
    Ok(acknowledgements(seen, AbortOnDrop::new(work)))
}

/// `CommandStatementIngest`: into an existing table, or into one made after the stream's schema. The
/// number of rows stored. They are committed when it answers, inside a transaction too.
pub(super) async fn to_table(
    caller: Caller,
    buffers: &Buffers,
    command: CommandStatementIngest,
    mut batches: Batches,
) -> Result<i64> {
    if command.temporary {
        return Err(Error::unsupported(
            "temporary tables are not supported",
            "ingest into an ordinary or streaming table",
        ));
    }
    if let Some(name) = command.options.keys().next() {
        return Err(Error::unsupported(
            format!("ingest option \"{name}\" is not supported"),
            "leave it out",
        ));
    }
    if let Some(catalog) = command.catalog.as_deref().filter(|c| *c != "weir") {
        return Err(Error::refused(
            SqlState::INVALID_CATALOG_NAME,
            format!("database \"{catalog}\" does not exist"),
        ));
    }
    let target = Target {
        session: caller.session,
        schema: command.schema.unwrap_or_else(|| "public".to_owned()),
        table: command.table,
        buffers: buffers.clone(),
    };
    let options = command.table_definition_options.unwrap_or_default();
    make_table_as_told(&target, options, &mut batches).await?;
    let progress = store(&target, batches, |_| {}).await?;
    Ok(i64::try_from(progress.accepted).unwrap_or(i64::MAX))
}

struct Target {
    session: Arc<dyn DataCalls>,
    schema: String,
    table: String,
    buffers: Buffers,
}

impl Target {
    /// One call of the session, in a task of its own: several run on several cores, and one that
    /// started is not cut off in its middle.
    fn ingest(&self, group: Group, turn: Turn) -> JoinHandle<Result<Receipt>> {
        let session = Arc::clone(&self.session);
        let (schema, table) = (self.schema.clone(), self.table.clone());
        tasks::spawn("ingest", async move {
            let started = Instant::now();
            let rows = Decoded {
                pieces: group.pieces,
                ..Decoded::default()
            };
            let receipt = session
                .ingest(&schema, &table, rows, turn, group.key)
                .await?;
            drop(group.rooms);
            if !receipt.again {
                metrics::ingested("flight", receipt.accepted, started.elapsed());
            }
            Ok(receipt)
        })
    }
}

/// A batch that came, with its own idempotency key if it has one.
struct Came {
    batch: RecordBatch,
    key: Option<RequestKey>,
    bytes: usize,
}

/// What is stored in one piece, and the memory it takes until then.
#[derive(Default)]
struct Group {
    pieces: Vec<Piece>,
    rooms: Vec<Room>,
    key: Option<RequestKey>,
}

/// Batches that wait for a free place.
#[derive(Default)]
struct Waiting {
    batches: VecDeque<(Piece, Option<RequestKey>, usize, Option<Room>)>,
    bytes: usize,
    /// Rows that came so far.
    rows: u64,
    /// Batches that came under each key so far.
    keys: HashMap<String, u64>,
}

impl Waiting {
    fn push(&mut self, came: Came, room: Option<Room>) {
        let first = self.rows + 1;
        self.rows += came.batch.num_rows() as u64;
        self.bytes += came.bytes;
        // a client may give all batches of a stream one key: a stream sent again has the same batches
        let key = came.key.map(|key| {
            let parts = self.keys.entry(key.text().to_owned()).or_default();
            *parts += 1;
            key.part(*parts)
        });
        let piece = Piece::arrow(came.batch, first);
        self.batches.push_back((piece, key, came.bytes, room));
    }

    /// What is stored next: one batch with a key, or all in front of the next such.
    fn group(&mut self) -> Group {
        let mut group = Group::default();
        while let Some((piece, key, bytes, room)) = self.batches.pop_front() {
            if key.is_some() && !group.pieces.is_empty() {
                self.batches.push_front((piece, key, bytes, room));
                break;
            }
            self.bytes -= bytes;
            group.pieces.push(piece);
            group.rooms.extend(room);
            if key.is_some() {
                group.key = key;
                break;
            }
        }
        group
    }
}

/// Stores all batches; `durable` hears of each step, in order.
async fn store(
    target: &Target,
    mut batches: Batches,
    mut durable: impl FnMut(&Progress),
) -> Result<Progress> {
    batches.schema().await?;
    if batches.has_key_for_all() {
        let progress = store_together(target, batches).await?;
        durable(&progress);
        return Ok(progress);
    }
    let mut progress = Progress::default();
    let mut line = Line::default();
    let mut running = FuturesOrdered::new();
    let mut waiting = Waiting::default();
    // came, but found no room
    let mut crowded: Option<Came> = None;
    let mut more = true;
    while more || crowded.is_some() || !waiting.batches.is_empty() || !running.is_empty() {
        if let Some(came) = crowded.take() {
            let mut room = target.buffers.try_take(came.bytes);
            if room.is_none() && running.is_empty() && waiting.batches.is_empty() {
                // who waits for others must not keep room from them
                room = Some(target.buffers.wait(came.bytes).await?);
            }
            match room {
                Some(room) => waiting.push(came, Some(room)),
                None => crowded = Some(came),
            }
        }
        let keyed = matches!(waiting.batches.front(), Some((_, Some(_), ..)));
        let due = keyed || waiting.bytes >= GROUP_BYTES;
        if (due && running.len() < IN_FLIGHT) || (running.is_empty() && !waiting.batches.is_empty())
        {
            let group = waiting.group();
            running.push_back(target.ingest(group, line.turn()));
            continue;
        }
        let read = more && crowded.is_none() && waiting.bytes < WAITING_BYTES;
        tokio::select! {
            biased;
            Some(ended) = running.next(), if !running.is_empty() => {
                let receipt = ended
                    .map_err(|e| Error::Internal(format!("ingest task failed: {e}")))??;
                progress.add(receipt);
                durable(&progress);
            }
            next = batches.next(), if read => match next? {
                Some(batch) if batch.num_rows() > 0 => {
                    let key = batches.take_key();
                    crowded = Some(Came { batch, key, bytes: batches.size() });
                }
                Some(_) => {}
                None => more = false,
            },
        }
    }
    Ok(progress)
}

/// Stores the batches of a stream that has one key for all, in one piece.
async fn store_together(target: &Target, mut batches: Batches) -> Result<Progress> {
    let mut waiting = Waiting::default();
    let mut room = target.buffers.take(0).await?;
    while let Some(batch) = batches.next().await? {
        let bytes = batches.size();
        room.grow_to(waiting.bytes + bytes).await?;
        let came = Came {
            batch,
            key: None,
            bytes,
        };
        waiting.push(came, None);
        if waiting.bytes > KEYED_BYTES {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("one idempotency key stands for more than {KEYED_BYTES} bytes"),
            )
            .with_hint("give each batch a key of its own"));
        }
    }
    let key = batches.take_key_for_all()?;
    let mut progress = Progress::default();
    let group = Group {
        key,
        ..waiting.group()
    };
    if group.pieces.iter().any(|p| p.batch.num_rows() > 0) {
        let stored = target.ingest(group, Turn::default()).await;
        progress.add(stored.map_err(|e| Error::Internal(format!("ingest task failed: {e}")))??);
    }
    Ok(progress)
}

/// The newest totals whenever the client is ready for them: a client that reads answers only at the
/// end makes nobody wait and costs no memory.
fn acknowledgements(
    seen: watch::Receiver<Progress>,
    work: AbortOnDrop<Result<Progress>>,
) -> Answers<PutResult> {
    let steps = stream::unfold(Some((work, Progress::default())), move |state| {
        let mut seen = seen.clone();
        async move {
            let (work, sent) = state?;
            // the receiver is cloned per step, so what was sent is compared and not marked
            let news = seen.wait_for(|p| *p != sent).await.map(|p| p.clone());
            if let Ok(progress) = news {
                return Some((Ok(progress.put_result()), Some((work, progress))));
            }
            let end = work
                .await
                .unwrap_or_else(|e| Err(Error::Internal(format!("ingest task failed: {e}"))));
            match end {
                Ok(progress) if progress == sent && sent.token.is_some() => None,
                Ok(progress) => Some((Ok(progress.put_result()), None)),
                Err(e) => Some((Err(status(&e)), None)),
            }
        }
    });
    Box::pin(steps)
}

async fn make_table_as_told(
    target: &Target,
    options: TableDefinitionOptions,
    batches: &mut Batches,
) -> Result<()> {
    let Target {
        session,
        schema,
        table,
        buffers: _,
    } = target;
    match session.ingest_table(schema, table).await {
        Ok(_) => match options.if_exists() {
            TableExistsOption::Append => Ok(()),
            TableExistsOption::Replace => Err(Error::unsupported(
                "replacing a table by ingest is not supported",
                "drop the table first, or append",
            )),
            TableExistsOption::Fail | TableExistsOption::Unspecified => Err(Error::refused(
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{table}\" already exists"),
            )),
        },
        Err(e) if e.state() == SqlState::UNDEFINED_TABLE => match options.if_not_exist() {
            TableNotExistOption::Create => {
                let columns = batches
                    .schema()
                    .await?
                    .ok_or_else(|| malformed("the stream has no schema to make a table after"))?;
                let sql = create_table(schema, table, &columns);
                let statement = only_statement(&**session, &sql)?;
                update(&**session, &statement, Vec::new()).await.map(drop)
            }
            TableNotExistOption::Fail | TableNotExistOption::Unspecified => Err(e),
        },
        Err(e) => Err(e),
    }
}

fn create_table(schema: &str, table: &str, columns: &Schema) -> String {
    let columns: Vec<String> = columns
        .fields()
        .iter()
        .map(|f| format!("{} {}", quoted(f.name()), types::sql_type(f)))
        .collect();
    format!(
        "CREATE TABLE {}.{} ({})",
        quoted(schema),
        quoted(table),
        columns.join(", ")
    )
}

/// A name as an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
