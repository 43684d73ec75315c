//! The same NDJSON file into the server over HTTP and into DuckDB with an explicit schema, in turns.
//!
//! Both use two threads or connections and end with the rows on disk: the server acknowledges what
//! its log has synced and then flushes to Delta, DuckDB writes a table and a checkpoint.

use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use reqwest::Client;
use tokio::task::JoinSet;

use crate::cli::{Common, JsonOptions};
use crate::error::{Error, Result};
use crate::events::{self, Events};
use crate::ingest::SEED;
use crate::process::Cpu;
use crate::report::{Report, Target};
use crate::server::{self, PASSWORD, Server, USER};

const SCRIPT: &str = include_str!("json/duckdb.py");
const BODY_ROWS: u64 = 16_384;

/// Seconds of one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    durable: f64,
    stored: f64,
    cpu: f64,
}

pub(crate) async fn measure(common: &Common, options: &JsonOptions) -> Result<Report> {
    let mut report = Report::new("json", common)?;
    report.option("rows", options.rows);
    report.option("rounds", options.rounds);
    let mut events = Events::new(SEED);
    let mut bodies = Vec::new();
    let mut left = options.rows;
    while left > 0 {
        let rows = left.min(BODY_ROWS);
        left -= rows;
        let batch = events.batch(usize::try_from(rows).unwrap_or(usize::MAX))?;
        bodies.push(Bytes::from(events::ndjson(&batch)?));
    }
    let place = tempfile::Builder::new()
        .prefix("json-")
        .tempdir_in(server::directory(common)?)?;
    let file = place.path().join("events.ndjson");
    std::fs::write(&file, bodies.concat())?;
    let bytes: usize = bodies.iter().map(Bytes::len).sum();
    let (mut own, mut other) = (Vec::new(), Vec::new());
    let mut version = String::new();
    for _ in 0..options.rounds {
        own.push(round(common, options, &bodies).await?);
        let output = Command::new(&options.python)
            .arg("-c")
            .arg(SCRIPT)
            .arg(&file)
            .output()?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|_| Error::Answer(String::from_utf8_lossy(&output.stderr).into_owned()))?;
        if answer["rows"].as_u64() != Some(options.rows) {
            return Err(Error::Answer(format!("DuckDB: {answer}")));
        }
        version = answer["version"].as_str().unwrap_or("?").to_owned();
        let number = |key: &str| answer[key].as_f64().unwrap_or(f64::NAN);
        other.push((number("seconds"), number("cpu")));
    }
    report.option("duckdb", version);
    let best = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let durable = best(&mut own.iter().map(|r| r.durable));
    let stored = best(&mut own.iter().map(|r| r.stored));
    let cpu = best(&mut own.iter().map(|r| r.cpu));
    let duckdb = best(&mut other.iter().map(|(seconds, _)| *seconds));
    let duckdb_cpu = best(&mut other.iter().map(|(_, cpu)| *cpu));
    let rows = options.rows as f64;
    report.figure("file", bytes as f64 / 1e6, "MB");
    report.figure("weir: durable and visible", rows / durable, "rows/s");
    report.figure("weir: stored in Delta too", rows / stored, "rows/s");
    report.figure("weir: CPU per million rows", cpu / rows * 1e6, "s");
    report.figure("DuckDB: stored", rows / duckdb, "rows/s");
    report.figure("DuckDB: CPU per million rows", duckdb_cpu / rows * 1e6, "s");
    report.figure("rate, weir durable to DuckDB", duckdb / durable, "x");
    report.target(Target::AtLeast(1.0));
    report.figure("rate, weir stored to DuckDB", duckdb / stored, "x");
    report.figure("CPU, DuckDB to weir", duckdb_cpu / cpu, "x");
    Ok(report)
}

async fn round(common: &Common, options: &JsonOptions, bodies: &[Bytes]) -> Result<Round> {
    let mut server = Server::start(common).await?;
    let client = server.pg().await?;
    client.batch_execute(events::CREATE_TABLE).await?;
    let url = format!("{}/v1/tables/public/events/rows", server.http());
    let cpu = Cpu::of(server.pid())?;
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for first in 0..2 {
        let mine: Vec<Bytes> = bodies.iter().skip(first).step_by(2).cloned().collect();
        running.spawn(post(url.clone(), mine));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let durable = begun.elapsed().as_secs_f64();
    client.batch_execute("FLUSH TABLE events").await?;
    let stored = begun.elapsed().as_secs_f64();
    let cpu = Cpu::of(server.pid())?.since(cpu).total();
    let rows: i64 = client
        .query_one("SELECT count(*) FROM events", &[])
        .await?
        .get(0);
    if rows.cast_unsigned() != options.rows {
        return Err(Error::Answer(format!("{rows} rows are visible")));
    }
    drop(client);
    server.stop().await?;
    Ok(Round {
        durable,
        stored,
        cpu,
    })
}

async fn post(url: String, bodies: Vec<Bytes>) -> Result<()> {
    let client = Client::builder().no_proxy().build()?;
    for body in bodies {
        let request = client
            .post(&url)
            .basic_auth(USER, Some(PASSWORD))
            .header("content-type", "application/x-ndjson")
            .body(body);
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            return Err(Error::Answer(format!("{status}: {text}")));
        }
    }
    Ok(())
}
