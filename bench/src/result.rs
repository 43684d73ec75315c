//! A large result over each wire: how fast it comes, and that it does not pile up in the server.

use std::time::Instant;

use bytes::Buf;
use futures::{StreamExt, TryStreamExt};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::cli::{Common, ResultOptions, Wire};
use crate::error::{Error, Result};
use crate::process::{self, Cpu, Watch};
use crate::report::{Report, Target};
use crate::server::Server;

/// How much more memory the server may hold while it answers.
const GROWTH: f64 = 200.0;
/// The first queries of a process allocate what it keeps.
const WARM_UP_ROWS: u64 = 100_000;
/// Where the result is stored when another server has it too.
const TABLE: &str = "bench_result";
const STORED: &str = "SELECT * FROM bench_result";

/// Each wire on a server of its own, so that none inherits the memory of the one before.
pub(crate) async fn measure(common: &Common, options: &ResultOptions) -> Result<Report> {
    let mut report = Report::new("result", common)?;
    report.option("rows", options.rows);
    let postgres = match &options.postgres {
        Some(config) => Some(Postgres::with(config, options.rows).await?),
        None => None,
    };
    let all = [Wire::Text, Wire::Binary, Wire::Flight];
    for wire in all {
        if options.wire.is_none_or(|only| only == wire) {
            let theirs = match &postgres {
                Some(postgres) => Some(postgres.rate(wire).await?),
                None => None,
            };
            one(common, options, wire, theirs, &mut report).await?;
        }
    }
    if let Some(postgres) = postgres {
        postgres.done().await?;
    }
    Ok(report)
}

/// Another server with the same rows in a table.
struct Postgres {
    client: Client,
    rows: u64,
    _connection: JoinSet<()>,
}

impl Postgres {
    async fn with(config: &str, rows: u64) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(config, NoTls).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // the client reports what went wrong
            let _ = connection.await;
        });
        let make = format!(
            "DROP TABLE IF EXISTS {TABLE}; CREATE UNLOGGED TABLE {TABLE} AS {}",
            query(rows)
        );
        client.batch_execute(&make).await?;
        client
            .batch_execute(&format!("VACUUM ANALYZE {TABLE}"))
            .await?;
        Ok(Self {
            client,
            rows,
            _connection: task,
        })
    }

    /// Rows a second, in text or in binary.
    async fn rate(&self, wire: Wire) -> Result<f64> {
        let begun = Instant::now();
        let got = match wire {
            Wire::Text => text(&self.client, STORED).await?,
            Wire::Binary | Wire::Flight => binary(&self.client, STORED).await?,
        };
        match got.rows == self.rows {
            true => Ok(got.rows as f64 / begun.elapsed().as_secs_f64()),
            false => Err(Error::Answer(format!("{} rows came back", got.rows))),
        }
    }

    async fn done(self) -> Result<()> {
        Ok(self
            .client
            .batch_execute(&format!("DROP TABLE {TABLE}"))
            .await?)
    }
}

async fn one(
    common: &Common,
    options: &ResultOptions,
    wire: Wire,
    theirs: Option<f64>,
    report: &mut Report,
) -> Result<()> {
    let mut server = Server::start(common).await?;
    let asked = match theirs {
        None => query(options.rows),
        Some(_) => {
            let make = format!("CREATE TABLE {TABLE} AS {}", query(options.rows));
            server.pg().await?.batch_execute(&make).await?;
            STORED.to_owned()
        }
    };
    read(&mut server, wire, &query(WARM_UP_ROWS)).await?;
    server.attach(common).await?;
    let (pid, own) = (server.pid(), std::process::id());
    let before = process::resident(pid)?;
    let watch = Watch::start(pid)?;
    let (cpu, own_cpu) = (Cpu::of(pid)?, Cpu::of(own)?);
    let begun = Instant::now();
    let got = read(&mut server, wire, &asked).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let used = Cpu::of(pid)?.since(cpu).total();
    let own_used = Cpu::of(own)?.since(own_cpu).total();
    let growth = watch.stop().saturating_sub(before) as f64 / 1e6;
    if got.rows != options.rows {
        return Err(Error::Answer(format!("{} rows came back", got.rows)));
    }
    let name = match wire {
        Wire::Text => "text",
        Wire::Binary => "binary",
        Wire::Flight => "flight",
    };
    let millions = options.rows as f64 / 1e6;
    report.figure(format!("{name}: rows"), got.rows as f64 / seconds, "rows/s");
    if let Some(theirs) = theirs {
        let rate = got.rows as f64 / seconds;
        report.figure(format!("{name}: PostgreSQL's"), theirs, "rows/s");
        report.figure(format!("{name}: rate, of PostgreSQL's"), rate / theirs, "");
    }
    report.figure(
        format!("{name}: values"),
        got.bytes as f64 / seconds / 1e6,
        "MB/s",
    );
    report.figure(
        format!("{name}: server CPU per million rows"),
        used / millions,
        "s",
    );
    report.figure(
        format!("{name}: client CPU per million rows"),
        own_used / millions,
        "s",
    );
    report.figure(format!("{name}: memory before"), before as f64 / 1e6, "MB");
    report.figure(format!("{name}: memory growth"), growth, "MB");
    report.target(Target::Below(GROWTH));
    server.stop().await
}

/// What was read: rows, and the bytes of their values as the wire carries them.
#[derive(Debug, Default)]
struct Got {
    rows: u64,
    bytes: u64,
}

fn query(rows: u64) -> String {
    format!(
        "SELECT i, (i % 1000)::integer AS k, i * 0.5::double precision AS x, \
         'item-' || (i % 5000)::text AS name, \
         '2026-01-01T00:00:00Z'::timestamptz AS at \
         FROM generate_series(1, {rows}) AS g (i)"
    )
}

async fn read(server: &mut Server, wire: Wire, sql: &str) -> Result<Got> {
    match wire {
        Wire::Text => text(&server.pg().await?, sql).await,
        Wire::Binary => binary(&server.pg().await?, sql).await,
        Wire::Flight => flight(server, sql.to_owned()).await,
    }
}

async fn text(client: &Client, sql: &str) -> Result<Got> {
    let mut messages = std::pin::pin!(client.simple_query_raw(sql).await?);
    let mut got = Got::default();
    while let Some(message) = messages.try_next().await? {
        if let SimpleQueryMessage::Row(row) = message {
            got.rows += 1;
            for column in 0..row.len() {
                got.bytes += row.get(column).map_or(0, str::len) as u64;
            }
        }
    }
    Ok(got)
}

async fn binary(client: &Client, sql: &str) -> Result<Got> {
    let none: [&str; 0] = [];
    let mut rows = std::pin::pin!(client.query_raw(sql, none).await?);
    let mut got = Got::default();
    while let Some(row) = rows.try_next().await? {
        got.rows += 1;
        got.bytes += row.raw_size_bytes() as u64;
    }
    Ok(got)
}

async fn flight(server: &Server, sql: String) -> Result<Got> {
    let mut client = server.flight().await?;
    let info = client.execute(sql, None).await?;
    let mut got = Got::default();
    for endpoint in info.endpoint {
        let Some(ticket) = endpoint.ticket else {
            return Err(Error::Answer("an endpoint without ticket".to_owned()));
        };
        let mut batches = client.do_get(ticket).await?.into_inner();
        while let Some(message) = batches.next().await {
            let message = message?;
            got.bytes += message.inner.data_body.remaining() as u64;
            if let arrow_flight::decode::DecodedPayload::RecordBatch(batch) = message.payload {
                got.rows += batch.num_rows() as u64;
            }
        }
    }
    Ok(got)
}
