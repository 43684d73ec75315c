//! Planning a point query over a table that has seen many commits and has many files.
//!
//! Events go into one day's partition each, several commits per partition; merging leaves one file
//! of each. So the log has all commits, and the table as many files as partitions. Ids rise with the
//! days, as those of events do, so that statistics tell which file a point is in.

use std::time::Instant;

use crate::cli::{Common, PlanOptions};
use crate::error::{Error, Result};
use crate::process::{self, Cpu};
use crate::report::Report;
use crate::server::Server;

/// Milliseconds at p50.
const PLANNED: [Option<f64>; 2] = [Some(5.0), None];

pub(crate) async fn measure(common: &Common, options: &PlanOptions) -> Result<Report> {
    let mut server = Server::start(common).await?;
    let client = server.pg().await?;
    let mut report = Report::new("plan", common)?;
    report.option("commits", options.commits);
    report.option("files", options.files);
    report.option("times", options.times);
    client
        .batch_execute(
            "CREATE TABLE points (id BIGINT NOT NULL, day DATE NOT NULL, value DOUBLE PRECISION, \
             name TEXT) PARTITIONED BY (day)",
        )
        .await?;
    let commits_of_a_day = options.commits.div_ceil(options.files);
    let begun = Instant::now();
    let insert = client
        .prepare("INSERT INTO points VALUES ($1, DATE '2020-01-01' + $2::integer, $1 * 0.5, 'n')")
        .await?;
    for n in 0..options.commits {
        let day = (n / commits_of_a_day).cast_signed();
        client.execute(&insert, &[&i64::from(n), &day]).await?;
    }
    let filled = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    client.batch_execute("OPTIMIZE points").await?;
    let merged = begun.elapsed().as_secs_f64();
    let row = client
        .query_one(
            "SELECT files, lake_version, rows FROM weir.tables WHERE table_name = 'points'",
            &[],
        )
        .await?;
    let (files, version, rows): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    if rows != i64::from(options.commits) {
        return Err(Error::Answer(format!("{rows} rows are in the table")));
    }
    server.attach(common).await?;
    let cpu = Cpu::of(server.pid())?;
    let (mut planned, mut answered) = (Vec::new(), Vec::new());
    for n in 0..options.times {
        let id = (u64::from(n) * 7919) % u64::from(options.commits);
        let query = format!("SELECT * FROM points WHERE id = {id}");
        let begun = Instant::now();
        client.simple_query(&format!("EXPLAIN {query}")).await?;
        planned.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        client.simple_query(&query).await?;
        answered.push(begun.elapsed().as_secs_f64());
    }
    let used = Cpu::of(server.pid())?.since(cpu).total();
    server.detach()?;
    report.figure("files", files as f64, "");
    report.figure("version of the table", version as f64, "");
    report.figure("filling", filled, "s");
    report.figure("merging", merged, "s");
    report.times("EXPLAIN of a point query", planned, PLANNED);
    report.times("the query itself", answered, [None, None]);
    let each = used / f64::from(options.times) * 1e3;
    report.figure("server CPU for both", each, "ms");
    let memory = process::resident(server.pid())? as f64 / 1e6;
    report.figure("memory", memory, "MB");
    drop(client);
    server.stop().await?;
    Ok(report)
}
