//! Settings: built-in < file < environment `WEIR__A__B` < flag; an unknown key is an error. The only
//! place that reads the environment (clients of object stores read their providers' variables).
//!
//! [`Config`] is the typed result and travels by value; `keys` lists every setting once (name,
//! meaning, how its text is read and shown); `layers` applies the sources in order.

mod keys;
mod layers;
mod values;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result, SqlState};

pub use keys::reference;
pub use layers::{Layers, environment};

/// The superuser's password in [`Config::for_test`].
pub const TEST_PASSWORD: &str = "weir-test-password";

/// The default log filter: weir's own events, and of the storage libraries only what went wrong.
const QUIET_LIBRARIES: &str =
    "info,buoyant_kernel=warn,buoyant_kernel_engine=warn,deltalake=warn,deltalake_core=warn";

/// Everything the server can be told at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Data directory: WAL, embedded catalog, `addresses.json`.
    pub data: PathBuf,
    /// Root URL of Delta tables; default `DIR/warehouse`.
    pub warehouse: Option<String>,
    /// Options of the object stores by name, credentials among them; they win over the
    /// environment's (`AWS_…`, `GOOGLE_…`, `AZURE_…`), which the stores' clients read themselves.
    pub storage: BTreeMap<String, Secret>,
    /// Catalog URL (`postgres://…`); default SQLite in `data`. It may hold a password.
    pub catalog: Option<Secret>,
    /// PostgreSQL address.
    pub pg_addr: SocketAddr,
    /// Flight SQL address.
    pub flight_addr: SocketAddr,
    /// HTTP address.
    pub http_addr: SocketAddr,
    /// Allow addresses beyond loopback without TLS.
    pub insecure: bool,
    /// TLS for all three doors.
    pub tls: Option<TlsConfig>,
    /// Password of the superuser `weir`; generated and printed once when there is none.
    pub admin_password: Option<Secret>,
    /// How long a Flight bearer token is good after its last use.
    pub token_lifetime: Duration,
    /// Default time between flushes of a streaming table.
    pub flush_interval: Duration,
    /// Shortest time between two commits of a table whose writers wait for its storage.
    pub acknowledge_interval: Duration,
    /// How long such writers wait before they are told that their rows are in the log only.
    pub acknowledge_wait: Duration,
    /// Bytes all tails may hold together before writers wait.
    pub tail_bytes: usize,
    /// Bytes that rows on their way to the log may hold together, over HTTP and Flight.
    pub buffer_bytes: usize,
    /// Bytes that the keys of rows may hold together, of all tables with a `dedup_key`.
    pub dedup_bytes: usize,
    /// Size of one file of the log.
    pub segment_bytes: u64,
    /// How long a request with an idempotency key is answered again.
    pub idempotency_window: Duration,
    /// Idempotency keys that are remembered at a time.
    pub max_idempotency_keys: usize,
    /// How long dead letters are kept.
    pub dead_letter_retention: Duration,
    /// Bytes queries may hold together.
    pub query_memory: usize,
    /// Bytes that storing materialized views may hold together.
    pub view_memory: usize,
    /// Bytes of view states that queries for one key keep; none plans every such query.
    pub lookup_memory: usize,
    /// Largest request body and COPY line, in bytes, also after decompression.
    pub max_body: usize,
    /// Largest request of a Segment library, in bytes, also after decompression.
    pub segment_body: usize,
    /// Largest event in one, in bytes.
    pub segment_message: usize,
    /// Largest Flight message, in bytes.
    pub max_message: usize,
    /// Connections each door takes at a time; more wait or are refused.
    pub max_connections: usize,
    /// How long shutdown waits for statements to end.
    pub grace: Duration,
    /// When background work on tables is done.
    pub jobs: JobsConfig,
    /// Which events are logged, in `tracing` filter syntax.
    pub log: String,
    /// How events are logged.
    pub log_format: LogFormat,
}

/// Background work on stored tables. An interval that is not there turns its work off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobsConfig {
    /// Between looks for small files.
    pub compaction_interval: Option<Duration>,
    /// Files of one size that are merged.
    pub compaction_files: usize,
    /// Between looks for logs without a recent checkpoint.
    pub checkpoint_interval: Option<Duration>,
    /// Between cleanings of logs.
    pub log_cleanup_interval: Option<Duration>,
    /// How long commits stay in logs: how far time travel reaches.
    pub log_retention: Duration,
    /// Between vacuums of all tables.
    pub vacuum_interval: Option<Duration>,
    /// How long files stay that have left their table.
    pub vacuum_retention: Duration,
    /// Between looks for rows whose retention is over.
    pub retention_interval: Option<Duration>,
    /// Between comparisons of a view's state with its sources; one view each time.
    pub verify_interval: Option<Duration>,
    /// Keys that are compared each time; none turns it off.
    pub verify_keys: usize,
}

impl Default for JobsConfig {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            compaction_interval: Some(Duration::from_secs(10)),
            compaction_files: 8,
            checkpoint_interval: Some(Duration::from_secs(10)),
            log_cleanup_interval: Some(Duration::from_secs(60 * 60)),
            log_retention: DAY * 7,
            vacuum_interval: Some(DAY),
            vacuum_retention: DAY * 7,
            retention_interval: Some(Duration::from_secs(60)),
            verify_interval: Some(Duration::from_secs(10 * 60)),
            verify_keys: 16,
        }
    }
}

/// Where the certificate chain and key are, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain file.
    pub cert: PathBuf,
    /// Private key file.
    pub key: PathBuf,
}

/// How log events are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A text that never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./weir-data"),
            warehouse: None,
            storage: BTreeMap::new(),
            catalog: None,
            pg_addr: loopback(5433),
            flight_addr: loopback(50051),
            http_addr: loopback(8080),
            insecure: false,
            tls: None,
            admin_password: None,
            token_lifetime: Duration::from_secs(12 * 60 * 60),
            flush_interval: Duration::from_secs(5),
            acknowledge_interval: Duration::from_millis(200),
            acknowledge_wait: Duration::from_secs(30),
            tail_bytes: 512 << 20,
            buffer_bytes: 128 << 20,
            dedup_bytes: 512 << 20,
            segment_bytes: 64 << 20,
            idempotency_window: Duration::from_secs(24 * 3600),
            max_idempotency_keys: 1_000_000,
            dead_letter_retention: Duration::from_secs(30 * 24 * 3600),
            query_memory: 1 << 30,
            view_memory: 512 << 20,
            lookup_memory: 256 << 20,
            max_body: 64 << 20,
            segment_body: 500 << 10,
            segment_message: 32 << 10,
            max_message: 64 << 20,
            max_connections: 1000,
            grace: Duration::from_secs(20),
            jobs: JobsConfig::default(),
            log: QUIET_LIBRARIES.to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

impl Config {
    /// A server for a test: ports the system chooses, short deadlines, superuser password
    /// [`TEST_PASSWORD`], everything under `dir`.
    pub fn for_test(dir: &Path) -> Self {
        Self {
            data: dir.to_owned(),
            pg_addr: loopback(0),
            flight_addr: loopback(0),
            http_addr: loopback(0),
            admin_password: Some(Secret(TEST_PASSWORD.to_owned())),
            flush_interval: Duration::from_millis(200),
            tail_bytes: 64 << 20,
            query_memory: 256 << 20,
            view_memory: 64 << 20,
            lookup_memory: 16 << 20,
            grace: Duration::from_secs(5),
            jobs: JobsConfig {
                retention_interval: Some(Duration::from_millis(200)),
                ..JobsConfig::default()
            },
            ..Self::default()
        }
    }

    /// Where the bound addresses are written.
    pub fn addresses_file(&self) -> PathBuf {
        self.data.join("addresses.json")
    }

    /// Refuses combinations that no server may start with.
    pub fn check(&self) -> Result<()> {
        let open = [
            ("pg.addr", self.pg_addr),
            ("flight.addr", self.flight_addr),
            ("http.addr", self.http_addr),
        ];
        for (key, addr) in open {
            if !addr.ip().is_loopback() && self.tls.is_none() && !self.insecure {
                return Err(invalid(format!(
                    "setting \"{key}\" is {addr}, beyond loopback, and there is no TLS"
                ))
                .with_hint("set tls.cert and tls.key, or pass --insecure"));
            }
        }
        Ok(())
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A refusal of a setting.
fn invalid(message: impl Into<String>) -> Error {
    Error::refused(SqlState::CONFIG_FILE_ERROR, message)
}

#[cfg(test)]
mod tests;
