//! Events into a streaming table until each is acknowledged, then their flush to Delta.
//!
//! All that is sent is encoded before the clock starts, so the sender's share of the machine is
//! small; it is reported beside the server's all the same. The messages of a topic even are with their
//! broker by then, and the clock runs from the statement that makes the table until all are rows.

pub(crate) mod flight;
mod http;
mod kafka;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cli::{Common, Door, IngestOptions};
use crate::error::{Error, Result};
use crate::events::{self, Events};
use crate::process::{self, Cpu, Watch};
use crate::report::{Report, Target, percentile};
use crate::server::Server;

/// What the issue asks of a release build on two cores.
const ROWS_PER_SECOND: f64 = 1_000_000.0;
/// NDJSON over HTTP, all in.
const PER_CORE: f64 = 350_000.0;
/// For five minutes, with flush, compaction and a view.
const SUSTAINED: f64 = 600_000.0;
const CPU_PER_MILLION: f64 = 1.6;
/// Stored bytes of those that the same rows take as NDJSON.
const STORED_SHARE: f64 = 15.0;
const VIEW: &str = "CREATE MATERIALIZED VIEW by_minute AS
  SELECT date_bin(INTERVAL '1 minute', event_time) AS minute, campaign,
    count(*) AS events, sum(revenue) AS revenue, max(duration_ms) AS longest
  FROM events GROUP BY 1, 2";
/// What is asked of JSON messages, per second of the server's CPU.
const MESSAGES_PER_CPU_SECOND: f64 = 250_000.0;
pub(crate) const SEED: u64 = 20_260_101;

/// Something to send, with its rows.
#[derive(Debug)]
struct Parcel<T> {
    rows: u64,
    bytes: u64,
    content: T,
}

/// What all connections share: which parcel is next, and when to end.
#[derive(Debug)]
struct Load<T> {
    full: Vec<Parcel<T>>,
    /// What is left of a number of rows; sent last.
    rest: Option<Parcel<T>>,
    parcels: u64,
    end: Option<Instant>,
    next: AtomicU64,
}

impl<T> Load<T> {
    /// Makes and encodes the rows.
    fn new(
        options: &IngestOptions,
        encode: impl Fn(u64, u64) -> Result<Vec<Parcel<T>>>,
    ) -> Result<Self> {
        let size = u64::from(batch_rows(options));
        let (parcels, rest) = match options.seconds {
            Some(_) => (u64::MAX, 0),
            None => (options.rows / size, options.rows % size),
        };
        let different = options.pool_rows.div_ceil(size).min(parcels.max(1));
        Ok(Self {
            full: encode(different, size)?,
            rest: match rest {
                0 => None,
                rest => encode(1, rest)?.pop(),
            },
            parcels,
            end: None,
            next: AtomicU64::new(0),
        })
    }

    fn begin(&mut self, options: &IngestOptions) {
        self.end = options
            .seconds
            .map(|s| Instant::now() + Duration::from_secs(s));
    }

    /// The next parcel for whoever asks.
    fn next(&self) -> Option<&Parcel<T>> {
        if self.end.is_some_and(|end| Instant::now() >= end) {
            return None;
        }
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        match n {
            n if n < self.parcels => {
                let different = self.full.len().max(1) as u64;
                self.full.get(usize::try_from(n % different).unwrap_or(0))
            }
            n if n == self.parcels => self.rest.as_ref(),
            _ => None,
        }
    }
}

/// What one connection did.
#[derive(Debug, Default)]
struct Sent {
    rows: u64,
    bytes: u64,
    /// Seconds from handing a parcel over to its acknowledgement.
    acknowledged: Vec<f64>,
}

/// One run over a new directory.
pub(crate) async fn measure(common: &Common, options: &IngestOptions) -> Result<Report> {
    let mut server = Server::start(common).await?;
    let client = server.pg().await?;
    let with = match options.dedup {
        true => " WITH (event_time = 'event_time', dedup_key = 'event_id')",
        false => "",
    };
    let create = format!("{}{with}", events::CREATE_TABLE);
    if options.door != Door::Kafka {
        client.batch_execute(&create).await?;
    }
    if options.view {
        if options.door == Door::Kafka {
            return Err(Error::Answer("--view is for Flight and HTTP".to_owned()));
        }
        client.batch_execute(VIEW).await?;
    }
    let mut report = Report::new("ingest", common)?;
    describe(&mut report, options);
    let prepared = match options.door {
        Door::Flight => Prepared::Flight(flight::prepare(&server, options).await?),
        Door::Http => Prepared::Http(http::prepare(&server, options)?),
        Door::Kafka => Prepared::Kafka(kafka::prepare(options, &create)?),
    };
    server.attach(common).await?;
    let (pid, own) = (server.pid(), std::process::id());
    let memory = process::resident(pid)?;
    let watch = Watch::start(pid)?;
    let (cpu, own_cpu) = (Cpu::of(pid)?, Cpu::of(own)?);
    let begun = Instant::now();
    let mut topic = None;
    let mut sent = match prepared {
        Prepared::Flight(load) => flight::send(load, options).await?,
        Prepared::Http(load) => http::send(load, options).await?,
        Prepared::Kafka(ready) => topic.insert(ready).read(&client).await?,
    };
    let seconds = begun.elapsed().as_secs_f64();
    let (used, own_used) = (Cpu::of(pid)?.since(cpu), Cpu::of(own)?.since(own_cpu));
    let counted: i64 = client
        .query_one("SELECT count(*) FROM events", &[])
        .await?
        .get(0);
    if counted.cast_unsigned() != sent.rows {
        return Err(Error::Answer(format!(
            "{} rows were acknowledged, {counted} are visible",
            sent.rows
        )));
    }
    let flush = Instant::now();
    client.batch_execute("FLUSH TABLE events").await?;
    let flush = flush.elapsed().as_secs_f64();
    let used_in_all = Cpu::of(pid)?.since(cpu);
    let peak = watch.stop();
    server.detach()?;
    if let Some(topic) = topic {
        report.option("partitions", topic.partitions());
        sent.acknowledged = topic.single_messages(&client, counted).await?;
    }
    let millions = sent.rows as f64 / 1e6;
    sent.acknowledged.sort_by(f64::total_cmp);
    report.figure("rows, acknowledged and visible", sent.rows as f64, "");
    report.figure("durable", sent.rows as f64 / seconds, "rows/s");
    match options.door {
        Door::Flight if options.view => report.target(Target::AtLeast(SUSTAINED)),
        Door::Flight => report.target(Target::AtLeast(ROWS_PER_SECOND)),
        Door::Http | Door::Kafka => {}
    }
    report.figure("sent", sent.bytes as f64 / seconds / 1e6, "MB/s");
    report.figure("per row", sent.bytes as f64 / sent.rows as f64, "bytes");
    report.figure("time", seconds, "s");
    let waited = match options.door {
        Door::Flight | Door::Http => "acknowledged after",
        Door::Kafka => "message alone, a row after",
    };
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let seconds = percentile(&sent.acknowledged, share);
        report.figure(format!("{waited}, {name}"), seconds, "s");
    }
    report.figure("flush of what was left", flush, "s");
    let stored = sent.rows as f64 / (seconds + flush);
    report.figure("stored in Delta", stored, "rows/s");
    report.figure("server CPU per million rows", used.total() / millions, "s");
    report.figure("  of it in the kernel", used.system / millions, "s");
    if options.door == Door::Kafka {
        let per_core = sent.rows as f64 / used.total();
        report.figure("durable, per core", per_core, "rows/s");
        report.target(Target::AtLeast(MESSAGES_PER_CPU_SECOND));
    }
    let in_all = used_in_all.total() / millions;
    report.figure("server CPU per million, with flush", in_all, "s");
    if options.door == Door::Flight {
        report.target(Target::AtMost(CPU_PER_MILLION));
    } else if options.door == Door::Http {
        report.figure("rows per second and core", 1e6 / in_all, "rows/s");
        report.target(Target::AtLeast(PER_CORE));
    }
    let stored: i64 = client
        .query_one(
            "SELECT bytes FROM weir.tables WHERE table_name = 'events'",
            &[],
        )
        .await?
        .get(0);
    let raw = raw_bytes_per_row()? * sent.rows as f64;
    report.figure(
        "stored, of the rows as NDJSON",
        stored as f64 / raw * 100.0,
        "%",
    );
    report.target(Target::AtMost(STORED_SHARE));
    if options.view {
        let viewed = Instant::now();
        let seen: i64 = client
            .query_one("SELECT sum(events)::bigint FROM by_minute", &[])
            .await?
            .get(0);
        if seen.cast_unsigned() != sent.rows {
            return Err(Error::Answer(format!("{seen} rows are in the view")));
        }
        report.figure(
            "reading the whole view",
            viewed.elapsed().as_secs_f64(),
            "s",
        );
    }
    report.figure(
        "sender CPU per million rows",
        own_used.total() / millions,
        "s",
    );
    report.figure("memory before", memory as f64 / 1e6, "MB");
    report.figure("memory, peak", peak as f64 / 1e6, "MB");
    drop(client);
    server.stop().await?;
    Ok(report)
}

/// What sending events over Flight for so long did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    /// Seconds of the server's CPU.
    pub(crate) cpu: f64,
}

/// Events over Flight into the table `events` that is there.
pub(crate) async fn for_a_while(server: &Server, seconds: u64) -> Result<Stretch> {
    let options = IngestOptions {
        seconds: Some(seconds),
        ..IngestOptions::flight()
    };
    let ready = flight::prepare(server, &options).await?;
    let cpu = Cpu::of(server.pid())?;
    let begun = Instant::now();
    let sent = flight::send(ready, &options).await?;
    Ok(Stretch {
        rows: sent.rows,
        seconds: begun.elapsed().as_secs_f64(),
        cpu: Cpu::of(server.pid())?.since(cpu).total(),
    })
}

enum Prepared {
    Flight(flight::Ready),
    Http(http::Ready),
    Kafka(kafka::Topic),
}

fn describe(report: &mut Report, options: &IngestOptions) {
    let door = match options.door {
        Door::Flight => "flight",
        Door::Http => "http",
        Door::Kafka => "kafka",
    };
    report.option("door", door);
    match options.seconds {
        Some(seconds) => report.option("seconds", seconds),
        None => report.option("rows", options.rows),
    }
    report.option("batch_rows", batch_rows(options));
    report.option("connections", options.connections);
    report.option("dictionary", options.dictionary);
    report.option("dedup", options.dedup);
    report.option("view", options.view);
    if options.door == Door::Kafka {
        report.option("compression", kafka::codec(options.compression));
    }
}

fn batch_rows(options: &IngestOptions) -> u32 {
    options.batch_rows.unwrap_or(match options.door {
        Door::Flight => 65_536,
        Door::Http => 16_384,
        Door::Kafka => 1_000,
    })
}

fn raw_bytes_per_row() -> Result<f64> {
    const SAMPLE: usize = 20_000;
    let text = events::ndjson(&Events::new(SEED).batch(SAMPLE)?)?;
    Ok(text.len() as f64 / SAMPLE as f64)
}

/// Batches of events, encoded by the door.
fn parcels<T>(
    number: u64,
    rows: u64,
    encode: impl Fn(&arrow::array::RecordBatch) -> Result<(u64, T)>,
) -> Result<Vec<Parcel<T>>> {
    let mut events = Events::new(SEED);
    let size = usize::try_from(rows).unwrap_or(usize::MAX);
    (0..number)
        .map(|_| {
            let (bytes, content) = encode(&events.batch(size)?)?;
            Ok(Parcel {
                rows,
                bytes,
                content,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_add_up_to_the_rows_asked_for() {
        let options = IngestOptions {
            rows: 1_050,
            batch_rows: Some(100),
            pool_rows: 300,
            ..IngestOptions::flight()
        };
        let load = Load::new(&options, |n, rows| parcels(n, rows, |_| Ok((0, ())))).unwrap();
        assert_eq!(load.full.len(), 3);
        let mut sent = 0;
        while let Some(parcel) = load.next() {
            sent += parcel.rows;
        }
        assert_eq!(sent, 1_050);
    }
}
