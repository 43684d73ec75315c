//! More rows over HTTP than the server can take: what it still admits, what it turns away, what it
//! holds meanwhile, and how soon it is as before.
//!
//! An open loop: a body has its time whatever became of those before it. The senders have a number of
//! connections; a body that finds none is not sent, and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Client;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cli::{Common, OverloadOptions};
use crate::error::{Error, Result};
use crate::events::{self, Events};
use crate::ingest::SEED;
use crate::process::{Cpu, Watch};
use crate::report::{Report, Target, percentile};
use crate::server::{PASSWORD, Server, USER};

/// Different bodies, sent over and over.
const DIFFERENT: usize = 100;
/// The default budgets for tail and buffers are 384 MiB of the 1 GiB that all may take.
const MEMORY: f64 = 1024.0 * 1.048_576;
const RECOVERY: f64 = 30.0;

/// What became of one body, and when: seconds since the begin of its phase.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Stored { due: f64, after: f64 },
    TurnedAway,
    NotSent,
}

pub(crate) async fn measure(common: &Common, options: &OverloadOptions) -> Result<Report> {
    let mut server = Server::start(common).await?;
    let client = server.pg().await?;
    client.batch_execute(events::CREATE_TABLE).await?;
    let mut report = Report::new("overload", common)?;
    report.option("calm", options.calm);
    report.option("rate", options.rate);
    report.option("seconds", options.seconds);
    report.option("batch_rows", options.batch_rows);
    report.option("outstanding", options.outstanding);
    let mut events = Events::new(SEED);
    let size = usize::try_from(options.batch_rows).unwrap_or(usize::MAX);
    let mut bodies = Vec::new();
    for _ in 0..DIFFERENT {
        bodies.push(Bytes::from(events::ndjson(&events.batch(size)?)?));
    }
    let senders = Senders {
        client: Client::builder().no_proxy().build()?,
        url: format!("{}/v1/tables/public/events/rows", server.http()),
        bodies,
        free: Arc::new(Semaphore::new(options.outstanding)),
    };
    server.attach(common).await?;
    let pid = server.pid();
    let mut stored = 0;
    let phases = [
        ("before", options.calm, options.seconds),
        ("overload", options.rate, options.seconds),
        ("after", options.calm, options.seconds.max(30)),
    ];
    let mut usual = f64::NAN;
    for (name, rate, seconds) in phases {
        let watch = Watch::start(pid)?;
        let cpu = Cpu::of(pid)?;
        let begun = Instant::now();
        let fates = senders.send(rate, seconds, options.batch_rows).await?;
        let took = begun.elapsed().as_secs_f64();
        let used = Cpu::of(pid)?.since(cpu).total();
        let peak = watch.stop() as f64 / 1e6;
        let mut after: Vec<f64> = fates
            .iter()
            .filter_map(|f| f.stored())
            .map(|(_, a)| a)
            .collect();
        after.sort_by(f64::total_cmp);
        let rows = after.len() as u64 * options.batch_rows;
        stored += rows;
        let turned = fates
            .iter()
            .filter(|f| matches!(f, Fate::TurnedAway))
            .count();
        let not_sent = fates.iter().filter(|f| matches!(f, Fate::NotSent)).count();
        report.figure(format!("{name}: asked for"), rate as f64, "rows/s");
        report.figure(format!("{name}: stored"), rows as f64 / took, "rows/s");
        report.figure(
            format!("{name}: turned away (429)"),
            turned as f64,
            "bodies",
        );
        report.figure(format!("{name}: not sent"), not_sent as f64, "bodies");
        for (rank, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let value = percentile(&after, share) * 1e3;
            report.figure(format!("{name}: stored after, {rank}"), value, "ms");
        }
        report.figure(format!("{name}: server CPU"), used / took, "cores");
        report.figure(format!("{name}: memory, peak"), peak, "MB");
        if name == "overload" {
            report.target(Target::AtMost(MEMORY));
        }
        if name == "before" {
            usual = percentile(&after, 0.99);
        }
        if name == "after" {
            report.figure("as before after", recovered(&fates, usual), "s");
            report.target(Target::AtMost(RECOVERY));
        }
    }
    let counted: i64 = client
        .query_one("SELECT count(*) FROM events", &[])
        .await?
        .get(0);
    if counted.cast_unsigned() != stored {
        let text = format!("{stored} rows were acknowledged, {counted} are visible");
        return Err(Error::Answer(text));
    }
    report.figure("rows, acknowledged and visible", stored as f64, "");
    server.detach()?;
    server.stop().await?;
    Ok(report)
}

impl Fate {
    fn stored(&self) -> Option<(f64, f64)> {
        match self {
            Self::Stored { due, after } => Some((*due, *after)),
            Self::TurnedAway | Self::NotSent => None,
        }
    }
}

/// The begin of the first second from which on everything is stored within twice the usual p99, or
/// 25 ms where that is more.
fn recovered(fates: &[Fate], usual: f64) -> f64 {
    let limit = (2.0 * usual).max(0.025);
    let late: Vec<f64> = fates
        .iter()
        .filter_map(Fate::stored)
        .filter(|(_, after)| *after > limit)
        .map(|(due, _)| due)
        .collect();
    let mut second = 0.0;
    // one in a hundred is late in usual times too
    while late.iter().filter(|due| **due >= second).count() * 100 > fates.len() {
        second += 1.0;
    }
    second
}

struct Senders {
    client: Client,
    url: String,
    bodies: Vec<Bytes>,
    free: Arc<Semaphore>,
}

impl Senders {
    /// Sends for so long, and waits for all answers.
    async fn send(&self, rate: u64, seconds: u64, batch_rows: u64) -> Result<Vec<Fate>> {
        let every = Duration::from_secs_f64(batch_rows as f64 / rate as f64);
        let number = seconds * rate / batch_rows;
        let begin = Instant::now();
        let mut running = JoinSet::new();
        let mut fates = Vec::new();
        for n in 0..number {
            let at = begin + every * u32::try_from(n).unwrap_or(u32::MAX);
            tokio::time::sleep_until(at).await;
            while let Some(fate) = running.try_join_next() {
                fates.push(fate??);
            }
            let Ok(connection) = Arc::clone(&self.free).try_acquire_owned() else {
                fates.push(Fate::NotSent);
                continue;
            };
            let index = usize::try_from(n).unwrap_or(0) % self.bodies.len();
            let request = self
                .client
                .post(&self.url)
                .basic_auth(USER, Some(PASSWORD))
                .header("content-type", "application/x-ndjson")
                .body(self.bodies.get(index).cloned().unwrap_or_default());
            let due = (at - begin).as_secs_f64();
            running.spawn(async move {
                let fate = fate(request, at, due).await;
                drop(connection);
                fate
            });
        }
        while let Some(fate) = running.join_next().await {
            fates.push(fate??);
        }
        Ok(fates)
    }
}

async fn fate(request: reqwest::RequestBuilder, at: Instant, due: f64) -> Result<Fate> {
    // a server that answers before it has read the body may close the connection under the sender
    let response = match request.send().await {
        Ok(response) => response,
        Err(e) if e.is_request() => return Ok(Fate::TurnedAway),
        Err(e) => return Err(e.into()),
    };
    match response.status().as_u16() {
        200 => {
            response.bytes().await?;
            let after = at.elapsed().as_secs_f64();
            Ok(Fate::Stored { due, after })
        }
        429 => Ok(Fate::TurnedAway),
        status => {
            let text = response.text().await?;
            Err(Error::Answer(format!("{status}: {text}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_is_the_first_second_that_stays_calm() {
        let fate = |due: f64, after: f64| Fate::Stored { due, after };
        let mut fates: Vec<Fate> = (0..1000)
            .map(|n| fate(f64::from(n) / 100.0, 0.001))
            .collect();
        assert_eq!(recovered(&fates, 0.001), 0.0);
        for (n, late) in fates.iter_mut().enumerate().take(250) {
            *late = fate(n as f64 / 100.0, 1.0);
        }
        assert_eq!(recovered(&fates, 0.001), 3.0);
    }
}
