//! Materialized views: what they take from ingestion, how they are read, and what storing them costs.
//!
//! First events come in without views and, into another server, with four of them. Then a view of one
//! row for each key counts many narrow events; it is compared with its own query over the same rows in
//! the same run. Its state is stored but for the last events, so every read merges state and tail.

mod keys;
mod points;

use std::time::Instant;

use crate::cli::{Common, ViewOptions};
use crate::error::{Error, Result};
use crate::events;
use crate::ingest::{self, Stretch};
use crate::process::Watch;
use crate::report::{Report, Target};
use crate::server::Server;

/// What is left of the rate with four views.
const LEFT: f64 = 0.7;

/// Three aggregations and the users' sessions.
const VIEWS: [(&str, &str); 4] = [
    (
        "by_minute",
        "SELECT date_bin(INTERVAL '1 minute', event_time) AS minute, campaign, count(*) AS events, \
         sum(revenue) AS revenue, max(duration_ms) AS longest FROM events GROUP BY 1, 2",
    ),
    (
        "by_user",
        "SELECT user_id, count(*) AS events, sum(revenue) AS revenue, min(event_time) AS first_at, \
         max(event_time) AS last_at FROM events GROUP BY user_id",
    ),
    (
        "by_place",
        "SELECT date_bin(INTERVAL '1 hour', event_time) AS hour, country, device, event_type, \
         count(*) AS events, avg(duration_ms) AS duration FROM events GROUP BY 1, 2, 3, 4",
    ),
    (
        "sessions",
        "SELECT user_id, session_window(event_time, INTERVAL '30 minutes') AS session, \
         count(*) AS events FROM events \
         GROUP BY user_id, session_window(event_time, INTERVAL '30 minutes')",
    ),
];

pub(crate) async fn measure(common: &Common, options: &ViewOptions) -> Result<Report> {
    let mut report = Report::new("view", common)?;
    if options.seconds > 0 {
        report.option("seconds", options.seconds);
        let without = ingested(common, options.seconds, false, &mut report).await?;
        let with = ingested(common, options.seconds, true, &mut report).await?;
        let rate = |s: &Stretch| s.rows as f64 / s.seconds;
        report.figure(
            "rate with views, of that without",
            rate(&with) / rate(&without),
            "",
        );
        report.target(Target::AtLeast(LEFT));
    }
    keys::measure(common, options, &mut report).await?;
    Ok(report)
}

/// Events into a new server.
async fn ingested(
    common: &Common,
    seconds: u64,
    views: bool,
    report: &mut Report,
) -> Result<Stretch> {
    let mut server = Server::start(common).await?;
    let client = server.pg().await?;
    client.batch_execute(events::CREATE_TABLE).await?;
    for (name, query) in VIEWS.iter().filter(|_| views) {
        client
            .batch_execute(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"))
            .await?;
    }
    let watch = Watch::start(server.pid())?;
    let done = ingest::for_a_while(&server, seconds).await?;
    let name = match views {
        true => "with views",
        false => "without views",
    };
    let rows = done.rows as f64;
    report.figure(format!("{name}: durable"), rows / done.seconds, "rows/s");
    let cpu = done.cpu / rows * 1e6;
    report.figure(format!("{name}: server CPU per million rows"), cpu, "s");
    // the read that follows the acknowledgement sees every row
    for (view, _) in VIEWS.iter().filter(|_| views) {
        let begun = Instant::now();
        let sum = format!("SELECT coalesce(sum(events), 0)::bigint FROM {view}");
        let seen: i64 = client.query_one(&sum, &[]).await?.get(0);
        if seen.cast_unsigned() != done.rows {
            return Err(Error::Answer(format!(
                "{} rows were acknowledged, {seen} are in the view {view}",
                done.rows
            )));
        }
        let took = begun.elapsed().as_secs_f64();
        report.figure(format!("{view}: read after the last row"), took, "s");
    }
    report.figure(
        format!("{name}: memory, peak"),
        watch.stop() as f64 / 1e6,
        "MB",
    );
    drop(client);
    server.stop().await?;
    Ok(done)
}
