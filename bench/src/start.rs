//! How soon an empty server answers, and what it holds while nothing happens.

use std::time::{Duration, Instant};

use crate::cli::{Common, StartOptions};
use crate::error::Result;
use crate::process::{self, Cpu};
use crate::report::{Report, Target};
use crate::server::Server;

/// After this long everything that a start leaves behind is done.
const IDLE: Duration = Duration::from_secs(5);

/// Starts it several times; every start is over a new directory.
pub(crate) async fn measure(common: &Common, options: &StartOptions) -> Result<Report> {
    let mut starts = Vec::new();
    let mut memory = Vec::new();
    let mut cpu = Vec::new();
    for n in 0..options.times {
        let begun = Instant::now();
        let mut server = Server::start(common).await?;
        let client = server.pg().await?;
        client.simple_query("SELECT 1").await?;
        starts.push(begun.elapsed().as_secs_f64());
        cpu.push(Cpu::of(server.pid())?.total());
        if n == 0 {
            tokio::time::sleep(IDLE).await;
            memory.push(process::resident(server.pid())? as f64);
        }
        drop(client);
        server.stop().await?;
    }
    let mut report = Report::new("start", common)?;
    report.option("times", options.times);
    report.figure("cold start", median(&mut starts), "s");
    report.target(Target::Below(1.0));
    report.figure("cold start, slowest", max(&starts), "s");
    report.figure("server CPU until the first answer", median(&mut cpu), "s");
    report.figure("idle memory after 5 s", max(&memory) / 1e6, "MB");
    report.target(Target::Below(150.0));
    Ok(report)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}
