//! One source: reads, makes rows, appends, again and again.
//!
//! While a batch is being stored the next one is read; never more, so a log that has no room holds the
//! source up and the client's own queue, which is bounded, holds the broker up. An append is never left
//! alone half way: where the source stands is known only when it has ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use catalog::{Oid, Relation};
use tokio_util::sync::CancellationToken;

use super::rows::{Sieve, Sifted};
use crate::decode::BadRows;
use crate::engine::Engine;
use crate::engine::activity::now_micros;
use crate::engine::scope::{Caller, Scope};
use crate::engine::sources::Notes;
use crate::error::{Error, Result, SqlState};
use crate::exec::ingest;
use crate::kafka::client::{Client, Polled};
use crate::kafka::decode::{self, Decoder};
use crate::kafka::messages::Messages;
use crate::kafka::options::{OnGap, Options, Start};
use crate::metrics;
use crate::stream::is_tail_full;
use crate::stream::letters::Letters;
use crate::stream::position::Positions;
use crate::system::{SourcePartition, SourceState};

/// Pause after an error; doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long one attempt waits for room in the log.
const ROOM: Duration = Duration::from_secs(1);
/// What the door is called.
const DOOR: &str = "kafka";
/// Between two looks at what the client tells of itself.
const LOOK: Duration = Duration::from_millis(500);

/// The task of one source.
pub(super) struct Reader {
    engine: Arc<Engine>,
    table: Oid,
    notes: Notes,
    stop: CancellationToken,
}

/// What one session of a source works with.
struct Session {
    client: Arc<Client>,
    options: Arc<Options>,
    topic: Arc<str>,
    decoder: Decoder,
    /// Where each partition goes on behind what was read; `None` before its first message.
    next: BTreeMap<i32, Option<i64>>,
    looked: Instant,
    discovered: Instant,
    counted: (Instant, u64),
}

/// Rows on their way into the log.
struct Batch {
    /// Rows of the table, and dead letters.
    parts: Vec<(Oid, Vec<RecordBatch>)>,
    rows: u64,
    positions: Positions,
    messages: u64,
    rejected: u64,
    bytes: u64,
    /// The message behind these that is none of the table's rows, if the source has to stop there.
    stops_at: Option<Error>,
}

impl Reader {
    pub(super) fn new(
        engine: Arc<Engine>,
        table: Oid,
        notes: Notes,
        stop: CancellationToken,
    ) -> Self {
        Self {
            engine,
            table,
            notes,
            stop,
        }
    }

    /// Reads until it is stopped or its table is gone. An error is noted, and after a pause it tries
    /// again from where the log says that it stands.
    pub(super) async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.notes.write(|a| a.messages);
            let Err(e) = self.session().await else {
                return;
            };
            if self.stop.is_cancelled() {
                return;
            }
            self.note_error(&e);
            if self.notes.write(|a| a.messages) > before {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn session(&self) -> Result<()> {
        let Some(relation) = self.relation() else {
            return Ok(());
        };
        let options = Arc::new(Options::of(&relation.options, &relation.columns)?);
        let name = format!("weir-{}", self.table);
        let client = {
            let options = Arc::clone(&options);
            let made = blocking(move || Client::open(&options, &name)).await?;
            Arc::new(made?)
        };
        let result = self.read(&client, options, &relation).await;
        // closing waits for the client's threads, and nobody waits for that
        drop(tokio::task::spawn_blocking(move || drop(client)));
        result
    }

    async fn read(
        &self,
        client: &Arc<Client>,
        options: Arc<Options>,
        relation: &Relation,
    ) -> Result<()> {
        let raw = options.raw_column(&relation.columns);
        let mut session = Session {
            client: Arc::clone(client),
            topic: options.topic.as_str().into(),
            decoder: Decoder::new(&options, raw),
            next: BTreeMap::new(),
            looked: Instant::now(),
            discovered: Instant::now(),
            counted: (Instant::now(), self.notes.write(|a| a.messages)),
            options,
        };
        self.begin(&mut session).await?;
        self.note_state(SourceState::Running);
        let mut pending: Option<Batch> = None;
        while !self.stop.is_cancelled() {
            let (stored, polled) = match pending.take() {
                Some(batch) => {
                    let (stored, polled) = tokio::join!(self.store(batch), poll(&session));
                    (stored, polled)
                }
                None => (Ok(()), poll(&session).await),
            };
            stored?;
            match polled? {
                Polled::Messages(messages) => {
                    let (back, batch) = self.accept(session, messages).await?;
                    session = back;
                    match batch {
                        Accepted::Batch(batch) => pending = Some(*batch),
                        Accepted::Nothing => {}
                        Accepted::Gone => return Ok(()),
                    }
                }
                Polled::Gap => self.gap(&mut session).await?,
            }
            self.look(&mut session).await?;
        }
        match pending {
            Some(batch) => self.store(batch).await,
            None => Ok(()),
        }
    }

    /// Finds out where to go on and assigns all partitions.
    async fn begin(&self, session: &mut Session) -> Result<()> {
        let client = Arc::clone(&session.client);
        let partitions = self.partitions(&client).await?;
        let stream = &self.engine.stream;
        let mut known = stream
            .source_positions(self.table, &session.topic, &partitions)
            .await?;
        if known.is_empty() && session.options.start != Start::Earliest {
            // what "latest" means is decided once and kept
            known = self.first_offsets(session, &partitions).await?;
            let positions = Positions {
                table: self.table,
                topic: Arc::clone(&session.topic),
                next: known.clone(),
            };
            let source = positions.to_bytes();
            ingest::append_from(stream, Vec::new(), &source, ROOM).await?;
        }
        session.next = partitions
            .iter()
            .map(|partition| (*partition, known.get(partition).copied()))
            .collect();
        self.notes.write(|a| {
            a.partitions = partitions
                .iter()
                .map(|partition| {
                    let next = known.get(partition).copied().unwrap_or(0);
                    let noted = SourcePartition {
                        next,
                        ..SourcePartition::default()
                    };
                    (*partition, noted)
                })
                .collect();
        });
        self.assign(session).await
    }

    /// The topic's partitions, as soon as a broker answers. The client is kept: to connect may take
    /// longer than one question.
    async fn partitions(&self, client: &Arc<Client>) -> Result<Vec<i32>> {
        loop {
            let client = Arc::clone(client);
            match self.ask(move || client.partitions()).await {
                Err(e) if e.state() == SqlState::CONNECTION_FAILURE => {
                    self.note_error(&e);
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn assign(&self, session: &Session) -> Result<()> {
        let (client, next) = (Arc::clone(&session.client), session.next.clone());
        self.ask(move || client.assign(&next)).await
    }

    async fn first_offsets(
        &self,
        session: &Session,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, i64>> {
        let client = Arc::clone(&session.client);
        let (start, partitions) = (session.options.start, partitions.to_vec());
        self.ask(move || match start {
            Start::Time(millis) => client.offsets_at(&partitions, millis),
            Start::Earliest | Start::Latest => partitions
                .iter()
                .map(|partition| Ok((*partition, client.range(*partition)?.1)))
                .collect(),
        })
        .await
    }

    /// Makes rows of messages.
    async fn accept(
        &self,
        mut session: Session,
        messages: Messages,
    ) -> Result<(Session, Accepted)> {
        if messages.is_empty() {
            return Ok((session, Accepted::Nothing));
        }
        let Some(relation) = self.relation() else {
            return Ok((session, Accepted::Gone));
        };
        session.decoder.prepare(&messages).await?;
        let engine = Arc::clone(&self.engine);
        let table = self.table;
        blocking(move || {
            let scope = Arc::new(Scope::new(&engine, owner(&engine, &relation)));
            let schema = ingest::accepted_schema(&relation);
            let mut sieve = Sieve {
                scope: &scope,
                relation: &relation,
                schema: Arc::clone(&schema),
                decoder: &mut session.decoder,
            };
            let (sifted, letters) = match ingest::bad_rows(&relation, BadRows::Collect) {
                BadRows::Refuse => (sieve.until_bad(&messages)?, Letters::default()),
                BadRows::Collect => {
                    let mut sifted = sieve.sift(&messages)?;
                    let bad = std::mem::take(&mut sifted.bad);
                    let letters = letters(&session.options, &messages, &schema, bad)?;
                    (sifted, letters)
                }
            };
            let mut batch = session.batch(table, &messages, sifted);
            batch.rejected = letters.len() as u64;
            if let Some((_, rows)) = batch.parts.pop() {
                batch.parts = ingest::parts(&scope, &relation, rows, &letters, DOOR)?;
            }
            Ok((session, Accepted::Batch(Box::new(batch))))
        })
        .await?
    }

    /// Appends rows; waits as long as there is no room.
    async fn store(&self, batch: Batch) -> Result<()> {
        let source = batch.positions.to_bytes();
        let started = Instant::now();
        let mut full = false;
        let mut duplicates = 0;
        loop {
            // without positions there is nothing to store
            if batch.positions.next.is_empty() {
                break;
            }
            let parts = batch.parts.clone();
            let stored = ingest::append_from(&self.engine.stream, parts, &source, ROOM).await;
            match stored {
                Ok(appended) => {
                    duplicates = appended.duplicates;
                    break;
                }
                Err(e) if is_tail_full(&e) => {
                    full = true;
                    self.note_state(SourceState::Throttled);
                    // what was read behind these must not be stored without them
                    if self.stop.is_cancelled() {
                        return Err(stopped());
                    }
                }
                Err(e) => return Err(e),
            }
        }
        if full {
            self.note_state(SourceState::Running);
        }
        let rows = batch.rows.saturating_sub(duplicates);
        metrics::ingested(DOOR, rows, started.elapsed());
        self.notes.write(|a| {
            a.messages += batch.messages;
            a.rows += rows;
            a.rejected += batch.rejected;
            a.bytes += batch.bytes;
            a.last_message_at = Some(now_micros());
            for (partition, next) in &batch.positions.next {
                let noted = a.partitions.entry(*partition).or_default();
                noted.next = *next;
                noted.drained = false;
            }
        });
        match batch.stops_at {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    /// The broker no longer has what comes next.
    async fn gap(&self, session: &mut Session) -> Result<()> {
        let client = Arc::clone(&session.client);
        let next = session.next.clone();
        let ranges: BTreeMap<i32, (i64, i64)> = self
            .ask(move || {
                next.keys()
                    .map(|partition| Ok((*partition, client.range(*partition)?)))
                    .collect()
            })
            .await?;
        for (partition, (oldest, end)) in ranges {
            let Some(Some(next)) = session.next.get(&partition).copied() else {
                continue;
            };
            if next >= oldest && next <= end {
                continue;
            }
            let lost = Error::refused(
                SqlState::DATA_EXCEPTION,
                format!(
                    "offset {next} of topic \"{}\", partition {partition}, is not there any more",
                    session.topic
                ),
            )
            .with_detail(format!("the broker has offsets {oldest} to {end}"))
            .with_hint("on_gap = 'continue' goes on with the oldest message there is");
            match session.options.on_gap {
                OnGap::Fail => return Err(lost),
                OnGap::Continue => {
                    self.note_error(&lost);
                    session.next.insert(partition, Some(oldest));
                }
            }
        }
        self.assign(session).await
    }

    /// Takes note of what the client tells, and looks for new partitions when it is time.
    async fn look(&self, session: &mut Session) -> Result<()> {
        if session.looked.elapsed() < LOOK {
            return Ok(());
        }
        session.looked = Instant::now();
        let told = session.client.telemetry().told();
        let error = session.client.telemetry().take_error();
        let (since, before) = session.counted;
        let messages = self.notes.write(|a| {
            if let Some(error) = error {
                a.last_error = Some(error);
                a.last_error_at = Some(now_micros());
            }
            match told.connected {
                Some(true) if a.state == SourceState::Waiting => a.state = SourceState::Running,
                Some(false) => a.state = SourceState::Waiting,
                _ => {}
            }
            for (partition, end) in told.partitions {
                if let Some(noted) = a.partitions.get_mut(&partition) {
                    let read = session.next.get(&partition).copied().flatten();
                    noted.end = Some(end.end);
                    // control records bring no row: behind the last message there may be some
                    noted.drained = end.drained && read.is_none_or(|read| read <= noted.next);
                }
            }
            a.messages
        });
        if since.elapsed() >= 2 * LOOK {
            let rate = (messages - before) as f64 / since.elapsed().as_secs_f64();
            self.notes.write(|a| a.per_second = rate);
            session.counted = (Instant::now(), messages);
        }
        if session.discovered.elapsed() >= session.options.discovery {
            session.discovered = Instant::now();
            self.discover(session).await?;
        }
        Ok(())
    }

    /// Takes in partitions that were added: they are read from their first message on.
    async fn discover(&self, session: &mut Session) -> Result<()> {
        let client = Arc::clone(&session.client);
        // a broker that is away is told of elsewhere
        let Ok(partitions) = self.ask(move || client.partitions()).await else {
            return Ok(());
        };
        let known = session.next.len();
        for partition in partitions {
            session.next.entry(partition).or_insert(None);
        }
        if session.next.len() == known {
            return Ok(());
        }
        self.notes.write(|a| {
            for partition in session.next.keys() {
                a.partitions.entry(*partition).or_default();
            }
        });
        self.assign(session).await
    }

    /// Asks the broker something; a source that is stopped does not wait for the answer.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        tokio::select! {
            answer = blocking(question) => answer?,
            () = self.stop.cancelled() => Err(stopped()),
        }
    }

    fn relation(&self) -> Option<Relation> {
        self.engine.catalog().relation_by_oid(self.table).cloned()
    }

    fn note_state(&self, state: SourceState) {
        self.notes.write(|a| a.state = state);
    }

    fn note_error(&self, e: &Error) {
        let report = e.report();
        let waits = report.state == SqlState::CONNECTION_FAILURE
            || report.state == SqlState::UNDEFINED_OBJECT;
        let text = match report.detail {
            Some(detail) => format!("{}: {detail}", report.message),
            None => report.message,
        };
        let news = self.notes.write(|a| {
            let news = a.last_error.as_ref() != Some(&text);
            a.state = match waits {
                true => SourceState::Waiting,
                false => SourceState::Failed,
            };
            a.per_second = 0.0;
            a.last_error = Some(text.clone());
            a.last_error_at = Some(now_micros());
            news
        });
        if news {
            tracing::warn!(table = %self.table, error = %text, "a source cannot go on");
        }
    }
}

/// What became of polled messages.
enum Accepted {
    /// Something to store.
    Batch(Box<Batch>),
    /// Nothing was read.
    Nothing,
    /// The table was dropped.
    Gone,
}

impl Session {
    fn batch(&mut self, table: Oid, messages: &Messages, sifted: Sifted) -> Batch {
        let stops_at = sifted.bad.into_iter().next().and_then(|(at, e)| {
            let message = messages.all().get(at)?;
            let place = format!(
                "topic \"{}\", partition {}, offset {}",
                self.topic, message.partition, message.offset
            );
            Some((at, told(&e, &place)))
        });
        let (stops_at, next, count) = match stops_at {
            None => (None, messages.next().clone(), messages.len()),
            Some((at, e)) => (Some(e), messages.next_of_first(at), at),
        };
        for (partition, next) in &next {
            self.next.insert(*partition, Some(*next));
        }
        let passed_over = match stops_at {
            None => messages.without_value(),
            Some(_) => 0,
        };
        let rows = sifted.rows.iter().map(|b| b.num_rows() as u64).sum();
        Batch {
            parts: vec![(table, sifted.rows)],
            rows,
            positions: Positions {
                table,
                topic: Arc::clone(&self.topic),
                next,
            },
            messages: count as u64 + passed_over,
            rejected: 0,
            bytes: messages.bytes() as u64,
            stops_at,
        }
    }
}

fn stopped() -> Error {
    Error::refused(SqlState::QUERY_CANCELED, "the source is stopped")
}

async fn poll(session: &Session) -> Result<Polled> {
    let client = Arc::clone(&session.client);
    let options = Arc::clone(&session.options);
    let known = session.next.iter();
    let next: BTreeMap<i32, i64> = known.filter_map(|(p, n)| Some((*p, (*n)?))).collect();
    blocking(move || client.poll(&next, &options)).await?
}

/// Letters of messages that are no rows of the table.
fn letters(
    options: &Options,
    messages: &Messages,
    schema: &Schema,
    bad: Vec<(usize, Error)>,
) -> Result<Letters> {
    let mut letters = Letters::default();
    for (at, error) in bad {
        if let Some(message) = messages.all().get(at) {
            let raw = decode::raw(options, messages, message, schema);
            letters.add(raw, &error)?;
        }
    }
    Ok(letters)
}

/// An error of a message with where the message stands.
fn told(e: &Error, place: &str) -> Error {
    let report = e.report();
    let text = match report.detail {
        Some(detail) => format!("{place}: {}: {detail}", report.message),
        None => format!("{place}: {}", report.message),
    };
    Error::refused(report.state, text)
}

/// Rows of a source come in by the rights of the table's owner.
fn owner(engine: &Engine, relation: &Relation) -> Caller {
    let mut caller = Caller::system();
    if let Some(owner) = engine.catalog().role_by_oid(relation.owner) {
        caller.role.clone_from(&owner.name);
        caller.session_role.clone_from(&owner.name);
    }
    caller
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Internal(format!("a source's work ended early: {e}")))
}
