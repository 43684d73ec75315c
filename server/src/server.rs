//! Start and stop: opens the database, binds the doors, serves, and takes it all down in order.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::protocol::admission::Admission;
use crate::protocol::backend::EngineBackend;
use crate::protocol::buffers::Buffers;
use crate::protocol::credentials::Credentials;
use crate::protocol::{flight, http, pg};
use crate::sources;
use crate::tasks::Tasks;
use crate::tls::Tls;
use crate::{metrics, tls};

/// How long the database may take to close once the doors are shut: a last flush can be long, so it
/// has its own time after `grace`.
const CLOSE_DEADLINE: Duration = Duration::from_secs(60);

/// How long work that was told to stop may hold the closed database: a task is dropped only when the
/// synchronous code it is in has ended.
const RELEASE_DEADLINE: Duration = Duration::from_secs(10);

/// Name of the PostgreSQL protocol in a TLS handshake that begins without asking.
const PG_PROTOCOL: &str = "postgresql";

/// Where the doors are; `addresses.json` holds the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addrs {
    /// PostgreSQL.
    pub pg: SocketAddr,
    /// Flight SQL.
    pub flight: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

impl Addrs {
    /// What a running server wrote down; `None` if there is no such file.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Writes the file so that a reader sees all of it or none.
    fn write(&self, path: &Path) -> std::io::Result<()> {
        let next = path.with_extension("json.next");
        let mut file = std::fs::File::create(&next)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&next, path)
    }
}

/// A running server. Dropping it aborts what runs; [`ServerHandle::shutdown`] stops it in order.
#[derive(Debug)]
pub struct ServerHandle {
    addrs: Addrs,
    engine: Arc<Engine>,
    fronts: Tasks,
    grace: Duration,
}

/// Opens the database, binds every door, then serves. On return all doors accept connections and
/// `addresses.json` is written.
pub async fn start(config: Config) -> Result<ServerHandle> {
    config.check()?;
    tls::install_provider();
    metrics::install();
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    let engine = Engine::open(config.clone()).await?;
    match serve(&config, &engine, tls).await {
        Ok((addrs, fronts)) => {
            tracing::info!(pg = %addrs.pg, flight = %addrs.flight, http = %addrs.http, "serving");
            Ok(ServerHandle {
                addrs,
                engine,
                fronts,
                grace: config.grace,
            })
        }
        Err(e) => {
            if let Err(close) = engine.close().await {
                tracing::warn!(error = %close, "cannot close the database after a failed start");
            }
            Err(e)
        }
    }
}

async fn serve(config: &Config, engine: &Arc<Engine>, tls: Option<Tls>) -> Result<(Addrs, Tasks)> {
    // the file of an earlier run must not be taken for this one's
    let file = config.addresses_file();
    match std::fs::remove_file(&file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("replace addresses.json")(e));
        }
        Ok(()) | Err(_) => {}
    }
    let (pg_listener, pg_addr) = bind("pg.addr", config.pg_addr).await?;
    let (flight, flight_addr) = bind("flight.addr", config.flight_addr).await?;
    let (http, http_addr) = bind("http.addr", config.http_addr).await?;
    let addrs = Addrs {
        pg: pg_addr,
        flight: flight_addr,
        http: http_addr,
    };

    let backend = Arc::new(EngineBackend::new(Arc::clone(engine)));
    let authenticator: Arc<dyn pg::Authenticator> = Arc::clone(&backend) as _;
    let options = pg::Options {
        max_connections: config.max_connections,
        max_message: config.max_body,
        // sessions get most of the time, closing their connections the rest
        grace: config.grace.mul_f32(0.8),
        tls: tls.as_ref().map(|t| t.config(&[PG_PROTOCOL])),
        ..pg::Options::default()
    };
    let credentials = Arc::new(Credentials::new(backend, config.token_lifetime));
    let buffers = Buffers::new(config.buffer_bytes);
    let stream = Arc::clone(&engine.stream);
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let admission = Admission::new(processors, move || stream.is_almost_full());
    let mut fronts = Tasks::new(CancellationToken::new());
    fronts.spawn("pg", |stop| {
        pg::serve(pg_listener, authenticator, options, stop)
    });
    fronts.spawn("flight", |stop| {
        let credentials = Arc::clone(&credentials);
        flight::serve(flight, credentials, &buffers, config, tls.as_ref(), stop)
    });
    fronts.spawn("http", |stop| {
        let credentials = Arc::clone(&credentials);
        let tls = tls.as_ref();
        http::serve(http, credentials, admission, &buffers, config, tls, stop)
    });
    fronts.spawn("sources", |stop| sources::run(Arc::clone(engine), stop));
    addrs
        .write(&file)
        .map_err(Error::io("write addresses.json"))?;
    Ok((addrs, fronts))
}

impl ServerHandle {
    /// Where the doors are.
    pub fn addrs(&self) -> Addrs {
        self.addrs
    }

    /// The database behind them.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Waits until a part of the server ends by itself, which it never should. Cancel safe.
    pub async fn failed(&mut self) -> (&'static str, Error) {
        self.fronts.failed().await
    }

    /// Stops accepting, lets statements finish, then flushes and closes the database. On return the
    /// data directory is free for another process. The error names what did not stop in time; the
    /// database is closed even then.
    pub async fn shutdown(mut self) -> Result<()> {
        let file = self.engine.config.addresses_file();
        if let Err(e) = std::fs::remove_file(&file) {
            tracing::warn!(error = %e, "cannot remove addresses.json");
        }
        let late = self.fronts.stop(Instant::now() + self.grace).await;
        let closed = tokio::time::timeout(CLOSE_DEADLINE, self.engine.close())
            .await
            .unwrap_or_else(|_| Err(too_late(&["engine"])));
        if !late.is_empty() {
            return Err(too_late(&late));
        }
        closed?;
        let released = self.engine.released();
        drop(self);
        tokio::time::timeout(RELEASE_DEADLINE, released.cancelled())
            .await
            .map_err(|_| too_late(&["background work"]))
    }
}

fn too_late(names: &[&str]) -> Error {
    Error::refused(
        SqlState::ADMIN_SHUTDOWN,
        format!("did not stop in time: {}", names.join(", ")),
    )
}

async fn bind(key: &str, addr: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let refused = |e: std::io::Error| {
        let error = Error::refused(
            SqlState::IO_ERROR,
            format!("cannot listen on \"{addr}\" ({key})"),
        )
        .with_detail(e.to_string());
        match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                error.with_hint("another program listens there; choose another port, or 0 for any")
            }
            _ => error,
        }
    };
    let listener = TcpListener::bind(addr).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}
