//! The program under measurement: its own process over an empty directory.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};
use tonic::transport::{Channel, Endpoint};

use crate::cli::Common;
use crate::error::{Error, Result};

pub(crate) const USER: &str = "weir";
/// The server lives on loopback for the length of a measurement.
pub(crate) const PASSWORD: &str = "bench";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);
/// A batch of 64k rows with long texts is larger than what gRPC takes by default.
const LARGEST_MESSAGE: usize = 256 << 20;

/// A running server. Dropping it kills it and removes its directory.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    attached: Option<Child>,
    doors: Doors,
    log: PathBuf,
    connections: JoinSet<()>,
    _data: Option<TempDir>,
}

#[derive(Debug, Clone, Copy)]
struct Doors {
    pg: SocketAddr,
    flight: SocketAddr,
    http: SocketAddr,
}

impl Server {
    /// Starts the program; its doors are open on return.
    pub(crate) async fn start(common: &Common) -> Result<Self> {
        let program = program(common)?;
        let dir = directory(common)?;
        let mut data = tempfile::Builder::new().prefix("data-").tempdir_in(dir)?;
        data.disable_cleanup(common.keep);
        let log = data.path().join("server.log");
        let out = File::create(&log)?;
        let mut command = Command::new(&program);
        command
            .arg("serve")
            .arg("--data")
            .arg(data.path())
            .args(["--pg-addr", "127.0.0.1:0"])
            .args(["--flight-addr", "127.0.0.1:0"])
            .args(["--http-addr", "127.0.0.1:0"])
            .env("WEIR__AUTH__ADMIN_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        for (key, value) in &common.settings {
            let name = key.to_uppercase().replace('.', "__");
            command.env(format!("WEIR__{name}"), value);
        }
        let mut child = command.spawn()?;
        let file = data.path().join("addresses.json");
        let begun = Instant::now();
        let doors = loop {
            if let Some(doors) = read_doors(&file) {
                break doors;
            }
            if child.try_wait()?.is_some() || begun.elapsed() > START_LIMIT {
                // it may be gone already
                let _ = child.kill();
                child.wait()?;
                return Err(Error::Server(end_of(&log)));
            }
            tokio::time::sleep(POLL).await;
        };
        Ok(Self {
            child,
            attached: None,
            doors,
            log,
            connections: JoinSet::new(),
            _data: Some(data),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts the command of `--attach` on it.
    pub(crate) async fn attach(&mut self, common: &Common) -> Result<()> {
        let Some(text) = &common.attach else {
            return Ok(());
        };
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or("true");
        let mut command = Command::new(name);
        command.args(words).arg(self.pid().to_string());
        self.attached = Some(command.stdin(Stdio::null()).spawn()?);
        // a profiler takes a moment to find all threads
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    /// Ends the command of `--attach`.
    pub(crate) fn detach(&mut self) -> Result<()> {
        if let Some(mut attached) = self.attached.take() {
            signal("INT", attached.id())?;
            attached.wait()?;
        }
        Ok(())
    }

    /// A session at the PostgreSQL door.
    pub(crate) async fn pg(&mut self) -> Result<Client> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.doors.pg.ip().to_string())
            .port(self.doors.pg.port())
            .user(USER)
            .password(PASSWORD)
            .dbname("weir");
        let (client, connection) = config.connect(NoTls).await?;
        self.connections.spawn(async move {
            // the client reports what went wrong
            let _ = connection.await;
        });
        Ok(client)
    }

    /// A session at the Flight door, logged in.
    pub(crate) async fn flight(&self) -> Result<FlightSqlServiceClient<Channel>> {
        let channel = Endpoint::new(format!("http://{}", self.doors.flight))?
            .connect()
            .await?;
        let inner = FlightServiceClient::new(channel)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let mut client = FlightSqlServiceClient::new_from_inner(inner);
        client
            .handshake(USER, PASSWORD)
            .await
            .map_err(|e| Error::Answer(format!("handshake: {e}")))?;
        Ok(client)
    }

    /// The address of the HTTP door.
    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.doors.http)
    }

    /// Asks it to stop and waits until it has; everything is stored then.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.detach()?;
        signal("TERM", self.pid())?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > STOP_LIMIT {
                return Err(Error::Server(end_of(&self.log)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // both may have ended by themselves
        let _ = self.detach();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that is measured.
pub(crate) fn program(common: &Common) -> Result<PathBuf> {
    let program = match &common.program {
        Some(program) => program.clone(),
        None => beside()?.join("weir"),
    };
    if program.is_file() {
        Ok(program)
    } else {
        Err(Error::NoProgram(program))
    }
}

/// Where data directories and the JSON file go; made where it is not there.
pub(crate) fn directory(common: &Common) -> Result<PathBuf> {
    let dir = match &common.dir {
        Some(dir) => dir.clone(),
        None => beside()?.join("../bench"),
    };
    std::fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

fn beside() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().unwrap_or(Path::new(".")).to_path_buf())
}

fn signal(name: &str, pid: u32) -> Result<()> {
    Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()?;
    Ok(())
}

fn read_doors(file: &Path) -> Option<Doors> {
    let text = std::fs::read_to_string(file).ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    let address = |door: &str| json.get(door)?.as_str()?.parse().ok();
    Some(Doors {
        pg: address("pg")?,
        flight: address("flight")?,
        http: address("http")?,
    })
}

fn end_of(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(4000);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}
