//! A view of one row for each key, over many more events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_flight::FlightDescriptor;
use arrow_flight::error::FlightError;
use futures::{StreamExt, stream};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use super::points;
use crate::cli::{Common, ViewOptions};
use crate::error::{Error, Result};
use crate::ingest::{SEED, flight::messages};
use crate::process::{Cpu, Watch, read_bytes};
use crate::report::{Report, Target};
use crate::server::Server;

const TABLE: &str = "CREATE STREAMING TABLE readings (device BIGINT NOT NULL, \
  at TIMESTAMPTZ NOT NULL, value DOUBLE PRECISION NOT NULL)";
pub(super) const QUERY: &str = "SELECT device, count(*) AS readings, sum(value) AS total, \
  min(value) AS lowest, max(value) AS highest, max(at) AS last_at FROM readings GROUP BY device";
/// The whole result, of which nothing but three numbers crosses the wire.
const WHOLE: &str =
    "SELECT count(*), sum(readings)::bigint, sum(total), max(last_at)::text, min(lowest)";

/// A whole read of the view, of the time its query takes.
const READ: f64 = 1.0 / 20.0;
/// Storing few new events, of making the state anew.
const STORED: f64 = 0.01;
const BATCH: usize = 65_536;
/// Different batches hold each key so often.
const ROUNDS: u64 = 4;
/// 2026-01-01T00:00:00Z in microseconds.
const BEGIN: i64 = 1_767_225_600_000_000;
/// Folding goes on in the background after the last event for so long at most.
const SETTLED: Duration = Duration::from_secs(60);

pub(super) async fn measure(
    common: &Common,
    options: &ViewOptions,
    report: &mut Report,
) -> Result<()> {
    report.option("events", options.events);
    report.option("keys", options.keys);
    report.option("new", options.new);
    report.option("connections", options.connections);
    report.option("point_seconds", options.point_seconds);
    report.option("rate", options.rate);
    let mut server = Server::start(common).await?;
    let client = server.pg().await?;
    client.batch_execute(TABLE).await?;
    client
        .batch_execute(&format!("CREATE MATERIALIZED VIEW by_device AS {QUERY}"))
        .await?;
    let watch = Watch::start(server.pid())?;
    let begun = Instant::now();
    send(&server, options, options.events).await?;
    let rate = options.events as f64 / begun.elapsed().as_secs_f64();
    report.figure("events by key: durable", rate, "rows/s");
    client
        .batch_execute("FLUSH TABLE readings; REFRESH MATERIALIZED VIEW by_device")
        .await?;
    settled(&client).await?;
    report.figure(
        "memory while they came, peak",
        watch.stop() as f64 / 1e6,
        "MB",
    );
    // these are not stored: reads take them from the tail
    send(&server, options, options.new).await?;
    server.attach(common).await?;

    let watch = Watch::start(server.pid())?;
    let row = client
        .query_one(
            "SELECT state_files, state_bytes, lag FROM weir.materialized_views",
            &[],
        )
        .await?;
    let (files, bytes, lag): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    report.figure("state: files", files as f64, "");
    report.figure("state: size", bytes as f64 / 1e6, "MB");
    report.figure("events behind it", lag as f64, "");

    let of_query = format!("{WHOLE} FROM ({QUERY}) AS q");
    let of_view = format!("{WHOLE} FROM by_device");
    let (mut query, mut view) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        let (asked, expected) = timed(&client, &of_query).await?;
        let (read, found) = timed(&client, &of_view).await?;
        if expected != found {
            return Err(Error::Answer(format!(
                "the query gives {expected:?}, the view {found:?}"
            )));
        }
        query = query.min(asked);
        view = view.min(read);
    }
    report.figure("its query", query * 1e3, "ms");
    report.figure("the view, whole", view * 1e3, "ms");
    report.figure("the view, of its query", view / query, "");
    report.target(Target::AtMost(READ));

    points::measure(&mut server, options, report).await?;
    stored(&server, &client, report).await?;
    report.figure(
        "memory while read and stored, peak",
        watch.stop() as f64 / 1e6,
        "MB",
    );
    server.detach()?;
    drop(client);
    server.stop().await
}

/// What storing the new events costs, and what making the state anew does.
async fn stored(server: &Server, client: &Client, report: &mut Report) -> Result<()> {
    client.batch_execute("FLUSH TABLE readings").await?;
    let mut costs = Vec::new();
    for (name, statement) in [
        (
            "storing the new events",
            "REFRESH MATERIALIZED VIEW by_device",
        ),
        (
            "making the state anew",
            "REFRESH MATERIALIZED VIEW by_device FULL",
        ),
    ] {
        let watch = Watch::start(server.pid())?;
        let (cpu, bytes) = (Cpu::of(server.pid())?, read_bytes(server.pid())?);
        let begun = Instant::now();
        client.batch_execute(statement).await?;
        let took = begun.elapsed().as_secs_f64();
        let cpu = Cpu::of(server.pid())?.since(cpu).total();
        let bytes = read_bytes(server.pid())?.saturating_sub(bytes) as f64;
        report.figure(format!("{name}: time"), took * 1e3, "ms");
        report.figure(format!("{name}: server CPU"), cpu * 1e3, "ms");
        report.figure(format!("{name}: bytes read"), bytes / 1e3, "kB");
        let peak = watch.stop() as f64;
        report.figure(format!("{name}: memory, peak"), peak / 1e6, "MB");
        let spilled = spilled(client).await? as f64;
        report.figure(format!("{name}: spilled"), spilled / 1e6, "MB");
        costs.push((cpu, bytes));
    }
    if let [few, all] = costs.as_slice() {
        report.figure("storing few: CPU, of all", few.0 / all.0, "");
        report.target(Target::AtMost(STORED));
        report.figure("storing few: bytes read, of all", few.1 / all.1, "");
        report.target(Target::AtMost(STORED));
    }
    Ok(())
}

/// Bytes that the newest refresh wrote to disk for want of memory.
async fn spilled(client: &Client) -> Result<u64> {
    let newest = "SELECT detail FROM weir.jobs WHERE name = 'refresh' AND trigger = 'statement' \
                  ORDER BY id DESC LIMIT 1";
    // a program of before tells of none
    let Some(row) = client.query_opt(newest, &[]).await? else {
        return Ok(0);
    };
    let detail: String = row.get(0);
    let bytes = detail.strip_suffix(" bytes spilled").unwrap_or_default();
    let bytes = bytes.rsplit(' ').next().unwrap_or_default();
    Ok(bytes.parse().unwrap_or(0))
}

/// Seconds that a query took, and its one row as text.
async fn timed(client: &Client, query: &str) -> Result<(f64, Vec<Option<String>>)> {
    let begun = Instant::now();
    let answer = client.simple_query(query).await?;
    let took = begun.elapsed().as_secs_f64();
    let row = answer.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or_else(|| Error::Answer("no row".to_owned()))?;
    let values = (0..row.len()).map(|i| row.get(i).map(str::to_owned));
    Ok((took, values.collect()))
}

/// Waits until the number of files has stood still for a while.
async fn settled(client: &Client) -> Result<()> {
    let begun = Instant::now();
    let (mut files, mut since) = (0_i64, Instant::now());
    while begun.elapsed() < SETTLED && since.elapsed() < Duration::from_secs(12) {
        let row = client
            .query_one("SELECT state_files FROM weir.materialized_views", &[])
            .await?;
        let now: i64 = row.get(0);
        if now != files {
            (files, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Sends so many events and waits until each is acknowledged.
async fn send(server: &Server, options: &ViewOptions, events: u64) -> Result<()> {
    let different = (options.keys * ROUNDS).min(events);
    let keys = options.keys;
    let made = tokio::task::spawn_blocking(move || batches(keys, different)).await??;
    let mut encoded = Vec::new();
    let mut schema = None;
    for batch in &made {
        let mut parts = messages(batch, false).await?.into_iter();
        schema = parts.next();
        encoded.extend(parts.map(|m| (batch.num_rows() as u64, m)));
    }
    let mut schema = schema.ok_or_else(|| Error::Answer("no schema".to_owned()))?;
    let path = vec!["public".to_owned(), "readings".to_owned()];
    schema.flight_descriptor = Some(FlightDescriptor::new_path(path));
    // whole rounds, then what is left of the number
    let mut order = Vec::new();
    let mut left = events;
    'rounds: loop {
        for (at, (rows, _)) in encoded.iter().enumerate() {
            if *rows > left {
                break 'rounds;
            }
            order.push(at);
            left -= rows;
        }
    }
    let mut rest = Vec::new();
    if left > 0 {
        let rows = usize::try_from(left).unwrap_or(0);
        let last = made.first().map(|b| b.slice(0, rows.min(b.num_rows())));
        let last = last.ok_or_else(|| Error::Answer("no rows".to_owned()))?;
        rest.extend(messages(&last, false).await?.into_iter().skip(1));
    }
    let parts = order
        .into_iter()
        .filter_map(move |at| encoded.get(at).map(|(_, m)| m.clone()));
    let all = std::iter::once(schema).chain(parts).chain(rest);
    let mut client = server.flight().await?;
    let answers = client.do_put(stream::iter(all)).await?;
    let mut answers = std::pin::pin!(answers);
    let mut accepted = 0;
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(FlightError::from)?;
        let json: serde_json::Value = serde_json::from_slice(&answer.app_metadata)
            .map_err(|e| Error::Answer(format!("acknowledgement: {e}")))?;
        accepted = json["accepted"].as_u64().unwrap_or(0);
    }
    match accepted == events {
        true => Ok(()),
        false => Err(Error::Answer(format!(
            "{accepted} of {events} events were acknowledged"
        ))),
    }
}

/// So many events in all: every key once, in another order each time. Values are whole numbers, whose
/// sums are the same in every order.
fn batches(keys: u64, events: u64) -> Result<Vec<RecordBatch>> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut order: Vec<i64> = (0..keys.cast_signed()).collect();
    let mut made = Vec::new();
    let (mut left, mut at) = (events, BEGIN);
    while left > 0 {
        order.shuffle(&mut random);
        for some in order.chunks(BATCH) {
            let rows = some.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let Some(devices) = some.get(..rows).filter(|d| !d.is_empty()) else {
                break;
            };
            let times = devices.iter().map(|_| {
                at += random.random_range(20..2_000);
                at
            });
            let times: Vec<i64> = times.collect();
            let values = devices
                .iter()
                .map(|_| f64::from(random.random_range(0..1_000)));
            let values: Vec<f64> = values.collect();
            let columns: [(&str, ArrayRef); 3] = [
                ("device", Arc::new(Int64Array::from(devices.to_vec()))),
                (
                    "at",
                    Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
                ),
                ("value", Arc::new(Float64Array::from(values))),
            ];
            made.push(RecordBatch::try_from_iter(columns)?);
            left -= rows as u64;
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_comes_as_often() {
        let made = batches(100_000, 250_000).unwrap();
        let rows: usize = made.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 250_000);
        assert!(made.iter().all(|b| b.num_rows() <= BATCH));
    }
}
