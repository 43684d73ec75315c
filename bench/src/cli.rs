//! The arguments of `bench`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures a release build of the server over its own doors.
#[derive(Debug, Parser)]
#[command(name = "bench", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) measure: Measure,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Measure {
    /// Cold start of an empty server and its memory when idle
    Start(StartOptions),
    /// Events into a streaming table, each row acknowledged when it is durable
    Ingest(IngestOptions),
    /// Events at a fixed rate, each batch at its time: when it is acknowledged, and when it is seen
    Latency(LatencyOptions),
    /// More rows over HTTP than the server can take, with a calm time before and after
    Overload(OverloadOptions),
    /// Planning a point query over a table of many commits and files
    Plan(PlanOptions),
    /// The same NDJSON file into the server and into DuckDB, in turns
    Json(JsonOptions),
    /// The smallest query, and connections that do nothing, at the PostgreSQL door
    Wire(WireOptions),
    /// A large result over the PostgreSQL and the Flight door
    Result(ResultOptions),
    /// Materialized views: what they cost while rows come in, when they are read, when they are stored
    View(ViewOptions),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Where data directories are made and removed, and the JSON file is left [default: `bench`
    /// beside the directory of this program]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The program to measure [default: `weir` beside this program]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
    /// A setting of the server, as in `stream.tail_bytes=4GiB`; may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<(String, String)>,
    /// Keep the data directory and the server's log
    #[arg(long, global = true)]
    pub(crate) keep: bool,
    /// Run this once the server is there, with its process id as the last argument, as in
    /// `perf record -g -o FILE -p`; it is ended with SIGINT when the measurement is over
    #[arg(long, global = true, value_name = "COMMAND")]
    pub(crate) attach: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StartOptions {
    /// How often it is started; the median is reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) times: u32,
}

/// How rows go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Door {
    /// Arrow batches by `DoPut`
    Flight,
    /// NDJSON bodies by `POST`
    Http,
    /// JSON messages of a topic, which the server reads; the broker is librdkafka's mock cluster
    Kafka,
}

/// How messages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Not at all
    None,
    /// By LZ4
    Lz4,
    /// By Zstandard
    Zstd,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct IngestOptions {
    /// How rows go in
    #[arg(long, value_enum, default_value_t = Door::Flight)]
    pub(crate) door: Door,
    /// Rows to send
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rows: u64,
    /// Send for so many seconds instead of a number of rows
    #[arg(long, conflicts_with = "rows")]
    pub(crate) seconds: Option<u64>,
    /// Rows of one batch or body, or sent to one partition in a row [default: 65536 over Flight, 16384
    /// over HTTP, 1000 over Kafka]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_rows: Option<u32>,
    /// Connections that send at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Send text columns of few values dictionary-encoded (Flight only)
    #[arg(long)]
    pub(crate) dictionary: bool,
    /// Into a table that drops duplicates by event_id; rows must differ: no more than --pool-rows
    #[arg(long)]
    pub(crate) dedup: bool,
    /// With a materialized view of counts and sums by minute and campaign over the table
    #[arg(long)]
    pub(crate) view: bool,
    /// Different rows that are made before the clock starts and sent over and over; over Kafka every row
    /// is another
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pool_rows: u64,
    /// Partitions of the topic (Kafka only) [default: as many as hold the rows, 5 MB each]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) partitions: Option<u32>,
    /// How messages are compressed (Kafka only)
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub(crate) compression: Compression,
}

impl IngestOptions {
    /// Over Flight, in batches of the usual size.
    pub(crate) fn flight() -> Self {
        Self {
            door: Door::Flight,
            rows: 1,
            seconds: None,
            batch_rows: None,
            connections: 1,
            dictionary: false,
            dedup: false,
            view: false,
            pool_rows: 1 << 20,
            partitions: None,
            compression: Compression::None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct LatencyOptions {
    /// Rows a second
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    /// How long it goes on before anything counts
    #[arg(long, default_value_t = 10)]
    pub(crate) warm_up: u64,
    /// How long it counts
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// Rows of one batch
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch_rows: u64,
}

#[derive(Debug, Args)]
pub(crate) struct OverloadOptions {
    /// Rows a second in calm times
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) calm: u64,
    /// Rows a second that are too many
    #[arg(long, default_value_t = 1_500_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    /// How long it is too much; the calm time before is as long
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// Rows of one body
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch_rows: u64,
    /// Requests under way at a time; the senders have no more connections
    #[arg(long, default_value_t = 256)]
    pub(crate) outstanding: usize,
}

#[derive(Debug, Args)]
pub(crate) struct PlanOptions {
    /// Commits to the table
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) commits: u32,
    /// Files it has in the end
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) files: u32,
    /// Queries that are planned
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) times: u32,
}

#[derive(Debug, Args)]
pub(crate) struct JsonOptions {
    /// A Python that has the module duckdb
    #[arg(long, value_name = "FILE")]
    pub(crate) python: PathBuf,
    /// Rows of the file
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rows: u64,
    /// Rounds; the best of each is compared
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ResultOptions {
    /// Rows of the result
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) rows: u64,
    /// Only this wire
    #[arg(long, value_enum)]
    pub(crate) wire: Option<Wire>,
    /// A PostgreSQL to compare with, as in `host=/tmp user=postgres`: both read one stored table, which
    /// is made there too
    #[arg(long, value_name = "CONNECTION")]
    pub(crate) postgres: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WireOptions {
    /// Queries of each kind
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..))]
    pub(crate) times: u32,
    /// Connections that do nothing
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
}

/// How a result comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wire {
    /// PostgreSQL, simple query, text
    Text,
    /// PostgreSQL, extended query, binary
    Binary,
    /// Arrow Flight
    Flight,
}

#[derive(Debug, Args)]
pub(crate) struct ViewOptions {
    /// How long events come in, without views and with them; 0 leaves this part out
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Events that the view by key counts
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// Keys it has
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// Events that come in after its state was stored, and are stored as a part of the measurement
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) new: u64,
    /// Connections that ask for keys at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// How long they ask
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) point_seconds: u64,
    /// Reads a second of all connections together, each at its time, beside those as fast as answers come
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
}

fn setting(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "a setting is KEY=VALUE".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_are_pairs() {
        assert_eq!(setting("log=a=b"), Ok(("log".to_owned(), "a=b".to_owned())));
        assert!(setting("log").is_err());
    }
}
