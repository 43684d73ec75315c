//! Events at a fixed rate, below what the server can take: how long until a batch is acknowledged,
//! and until somebody else sees it.
//!
//! The sender is an open loop: a batch has its time, and what it waits for before it is sent counts.
//! A second connection counts the rows over and over; a batch is seen when the count reaches it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cli::{Common, LatencyOptions};
use crate::error::{Error, Result};
use crate::events::{self, Events};
use crate::ingest::{SEED, flight::messages};
use crate::process::{Cpu, Watch};
use crate::report::Report;
use crate::server::Server;

/// Milliseconds at p50 and p99.
const ACKNOWLEDGED: [Option<f64>; 2] = [Some(5.0), Some(25.0)];
const SEEN: [Option<f64>; 2] = [Some(10.0), Some(50.0)];
/// Different batches, sent over and over.
const DIFFERENT: u64 = 200;
/// Between two counts.
const PAUSE: Duration = Duration::from_millis(1);
/// After the last batch is acknowledged, all must be seen in this time.
const LAST_SEEN: Duration = Duration::from_secs(10);

/// Rows so far and when they were due.
type Due = Arc<Mutex<VecDeque<(u64, Instant)>>>;

pub(crate) async fn measure(common: &Common, options: &LatencyOptions) -> Result<Report> {
    let mut server = Server::start(common).await?;
    let client = server.pg().await?;
    client.batch_execute(events::CREATE_TABLE).await?;
    let mut report = Report::new("latency", common)?;
    report.option("rate", options.rate);
    report.option("warm_up", options.warm_up);
    report.option("seconds", options.seconds);
    report.option("batch_rows", options.batch_rows);
    let mut events = Events::new(SEED);
    let size = usize::try_from(options.batch_rows).unwrap_or(usize::MAX);
    let mut schema = None;
    let mut batches = Vec::new();
    for _ in 0..DIFFERENT {
        let mut encoded = messages(&events.batch(size)?, false).await?.into_iter();
        schema = encoded.next();
        batches.extend(encoded);
    }
    let mut schema = schema.ok_or_else(|| Error::Answer("no schema".to_owned()))?;
    let path = vec!["public".to_owned(), "events".to_owned()];
    schema.flight_descriptor = Some(FlightDescriptor::new_path(path));

    let mut flight = server.flight().await?;
    server.attach(common).await?;
    let watch = Watch::start(server.pid())?;
    let cpu = Cpu::of(server.pid())?;
    let every = Duration::from_secs_f64(options.batch_rows as f64 / options.rate as f64);
    let number = (options.warm_up + options.seconds) * options.rate / options.batch_rows;
    let (unacknowledged, unseen) = (Due::default(), Due::default());
    let done = Arc::new(AtomicBool::new(false));
    let mut probe = JoinSet::new();
    probe.spawn(count(client, Arc::clone(&unseen), Arc::clone(&done)));
    let (first, second) = (Arc::clone(&unacknowledged), Arc::clone(&unseen));
    let begin = Instant::now() + Duration::from_millis(100);
    let rows = options.batch_rows;
    let due = stream::iter(0..number).then(move |n| {
        let at = begin + every * u32::try_from(n).unwrap_or(u32::MAX);
        let (first, second) = (Arc::clone(&first), Arc::clone(&second));
        let batch = usize::try_from(n % DIFFERENT)
            .ok()
            .and_then(|n| batches.get(n));
        let batch = batch.cloned().unwrap_or_default();
        async move {
            tokio::time::sleep_until(at).await;
            lock(&first).push_back(((n + 1) * rows, at));
            lock(&second).push_back(((n + 1) * rows, at));
            batch
        }
    });
    let messages = stream::once(std::future::ready(schema)).chain(due);
    let (accepted, acknowledged) = put(&mut flight, messages, &unacknowledged).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let ended = Instant::now();
    while !lock(&unseen).is_empty() && ended.elapsed() < LAST_SEEN {
        tokio::time::sleep(PAUSE).await;
    }
    done.store(true, Ordering::Relaxed);
    let (seen, counts) = match probe.join_next().await {
        Some(ended) => ended??,
        None => (Vec::new(), 0),
    };
    if accepted != number * rows || seen.len() as u64 != number {
        let text = format!("{accepted} rows acknowledged, {} batches seen", seen.len());
        return Err(Error::Answer(text));
    }
    let used = Cpu::of(server.pid())?.since(cpu).total();
    let peak = watch.stop();
    server.detach()?;
    report.figure("rows", accepted as f64, "");
    report.figure("rate", accepted as f64 / seconds, "rows/s");
    let from = begin + Duration::from_secs(options.warm_up);
    let counted = |times: Vec<(Instant, f64)>| {
        let counted = times.into_iter().filter(|(at, _)| *at >= from);
        counted.map(|(_, after)| after).collect()
    };
    report.times("acknowledged after", counted(acknowledged), ACKNOWLEDGED);
    report.times("seen by another session after", counted(seen), SEEN);
    report.figure("counts by that session", counts as f64 / seconds, "/s");
    report.figure("server CPU", used / seconds, "cores");
    report.figure("memory, peak", peak as f64 / 1e6, "MB");
    server.stop().await?;
    Ok(report)
}

/// Sends all; rows accepted, and how long after its time each batch was acknowledged.
async fn put(
    flight: &mut arrow_flight::sql::client::FlightSqlServiceClient<tonic::transport::Channel>,
    messages: impl futures::Stream<Item = FlightData> + Send + 'static,
    unacknowledged: &Due,
) -> Result<(u64, Vec<(Instant, f64)>)> {
    let answers = flight.do_put(messages).await?;
    let mut answers = std::pin::pin!(answers);
    let (mut accepted, mut after) = (0, Vec::new());
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(FlightError::from)?;
        let json: serde_json::Value = serde_json::from_slice(&answer.app_metadata)
            .map_err(|e| Error::Answer(format!("acknowledgement: {e}")))?;
        accepted = json["accepted"].as_u64().unwrap_or(0);
        reached(unacknowledged, accepted, &mut after);
    }
    Ok((accepted, after))
}

/// Counts until told to stop; how long after its time each batch was in the count, and how often it
/// counted.
async fn count(
    client: tokio_postgres::Client,
    unseen: Due,
    done: Arc<AtomicBool>,
) -> Result<(Vec<(Instant, f64)>, u64)> {
    let statement = client.prepare("SELECT count(*) FROM events").await?;
    let (mut after, mut counts) = (Vec::new(), 0);
    while !done.load(Ordering::Relaxed) {
        let rows: i64 = client.query_one(&statement, &[]).await?.get(0);
        counts += 1;
        reached(&unseen, rows.cast_unsigned(), &mut after);
        tokio::time::sleep(PAUSE).await;
    }
    Ok((after, counts))
}

/// Takes away what `rows` has reached.
fn reached(due: &Due, rows: u64, after: &mut Vec<(Instant, f64)>) {
    let now = Instant::now();
    let mut due = lock(due);
    while let Some((_, at)) = due.pop_front_if(|(total, _)| *total <= rows) {
        after.push((at, (now - at).as_secs_f64()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
