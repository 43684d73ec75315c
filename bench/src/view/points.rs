//! One key at a time, by many connections.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::keys::QUERY;
use crate::cli::ViewOptions;
use crate::error::{Error, Result};
use crate::ingest::SEED;
use crate::process::Cpu;
use crate::report::Report;
use crate::server::Server;

/// Milliseconds at p99.
const ANSWERED: [Option<f64>; 2] = [None, Some(10.0)];
/// What the query itself is asked, one key after the other.
const QUERIES: u32 = 3;

/// When a connection asks.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// As soon as it has its answer.
    Closed,
    /// This often; what it waits for before it can ask counts.
    Every(Duration),
}

pub(super) async fn measure(
    server: &mut Server,
    options: &ViewOptions,
    report: &mut Report,
) -> Result<()> {
    let every = Duration::from_secs_f64(f64::from(options.connections) / options.rate as f64);
    for (name, pace) in [
        ("a key, at a fixed rate", Pace::Every(every)),
        ("a key, back to back", Pace::Closed),
    ] {
        let mut asking = JoinSet::new();
        let cpu = Cpu::of(server.pid())?;
        let mut clients = Vec::new();
        for _ in 0..options.connections {
            clients.push(server.pg().await?);
        }
        let begin = Instant::now() + Duration::from_millis(200);
        let end = begin + Duration::from_secs(options.point_seconds);
        for (n, client) in (0_u32..).zip(clients) {
            // connections do not ask at the same moment
            let first = begin + every * n / options.connections;
            asking.spawn(ask(client, options.keys, u64::from(n), pace, first, end));
        }
        let mut times = Vec::new();
        while let Some(asked) = asking.join_next().await {
            times.extend(asked??);
        }
        let used = Cpu::of(server.pid())?.since(cpu).total();
        let reads = times.len() as f64;
        report.times(name, times, ANSWERED);
        let seconds = options.point_seconds as f64;
        report.figure(format!("{name}: reads"), reads / seconds, "/s");
        report.figure(format!("{name}: server CPU"), used / reads * 1e3, "ms");
    }
    let client = server.pg().await?;
    let mut times = Vec::new();
    for n in 0..QUERIES {
        let sql = format!("SELECT * FROM ({QUERY}) AS q WHERE device = {}", n * 7919);
        let begun = Instant::now();
        client.simple_query(&sql).await?;
        times.push(begun.elapsed().as_secs_f64());
    }
    report.times("a key of its query", times, [None, None]);
    Ok(())
}

/// Asks until it is over; the seconds that each answer took.
async fn ask(
    client: Client,
    keys: u64,
    seed: u64,
    pace: Pace,
    first: Instant,
    end: Instant,
) -> Result<Vec<f64>> {
    let statement = client
        .prepare("SELECT readings, total, last_at::text FROM by_device WHERE device = $1")
        .await?;
    let mut random = StdRng::seed_from_u64(SEED + seed);
    let mut times = Vec::new();
    let mut due = first;
    while due < end {
        if let Pace::Every(_) = pace {
            tokio::time::sleep_until(due).await;
        } else {
            due = Instant::now();
        }
        let key = random.random_range(0..keys.cast_signed());
        let rows = client.query(&statement, &[&key]).await?;
        if rows.len() != 1 {
            return Err(Error::Answer(format!(
                "{} rows for device {key}",
                rows.len()
            )));
        }
        times.push(due.elapsed().as_secs_f64());
        if let Pace::Every(pause) = pace {
            due += pause;
        }
    }
    Ok(times)
}
