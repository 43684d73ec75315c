//! What the PostgreSQL door costs by itself: the smallest query, and connections that do nothing.

use std::time::{Duration, Instant};

use crate::cli::{Common, WireOptions};
use crate::error::Result;
use crate::process;
use crate::report::{Report, Target};
use crate::server::Server;

/// Connections are settled after this long.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections beside the idle ones.
const OTHERS: u32 = 10;

pub(crate) async fn measure(common: &Common, options: &WireOptions) -> Result<Report> {
    let mut roomy = common.clone();
    let most = (options.connections + OTHERS).to_string();
    roomy.settings.push(("limits.connections".to_owned(), most));
    let mut server = Server::start(&roomy).await?;
    let client = server.pg().await?;
    let mut report = Report::new("wire", common)?;
    report.option("times", options.times);
    report.option("connections", options.connections);

    let prepared = client.prepare("SELECT 1").await?;
    let (mut simple, mut extended) = (Vec::new(), Vec::new());
    for n in 0..options.times {
        let begun = Instant::now();
        client.simple_query("SELECT 1").await?;
        let after = Instant::now();
        client.query_one(&prepared, &[]).await?;
        // the first ones warm up both sides
        if n >= options.times / 10 {
            simple.push(after.duration_since(begun).as_secs_f64());
            extended.push(after.elapsed().as_secs_f64());
        }
    }
    report.times("SELECT 1, simple", simple, [Some(0.3), None]);
    report.times("SELECT 1, prepared", extended, [Some(0.3), None]);

    let before = process::resident(server.pid())?;
    let mut idle = Vec::new();
    let begun = Instant::now();
    for _ in 0..options.connections {
        idle.push(server.pg().await?);
    }
    let opened = begun.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let held = process::resident(server.pid())?.saturating_sub(before);
    report.figure("logins", f64::from(options.connections) / opened, "/s");
    report.figure("memory of idle connections", held as f64 / 1e6, "MB");
    report.target(Target::Below(100.0));
    drop(idle);
    server.stop().await?;
    Ok(report)
}
