//! Settings: built-in < file < environment `WEIR__A__B` < flag; an unknown key is an error. The only
//! place that reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the server can be told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data directory: WAL, embedded catalog, `addresses.json`.
    pub data: PathBuf,
    /// Root URL of Delta tables; default `DIR/warehouse`.
    pub warehouse: Option<String>,
    /// Catalog URL (`postgres://…`); default SQLite in `data`.
    pub catalog: Option<String>,
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
    /// Default time between flushes of a streaming table.
    pub flush_interval: Duration,
    /// Bytes all tails may hold together before writers wait.
    pub tail_bytes: usize,
    /// Bytes queries may hold together.
    pub query_memory: usize,
    /// Largest request body and COPY line, in bytes.
    pub max_body: usize,
    /// How long shutdown waits for statements to end.
    pub grace: Duration,
}

/// Where the certificate chain and key are, PEM.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Certificate chain file.
    pub cert: PathBuf,
    /// Private key file.
    pub key: PathBuf,
}

/// A text that never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
