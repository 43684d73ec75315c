//! The program as its own process: for command-line tests and for `kill -9`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::PASSWORD;
use crate::pg::PgSession;

/// How long a server may take to open its doors, recovery included, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a server told to stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// The three doors of a server.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// PostgreSQL protocol.
    pub pg: SocketAddr,
    /// Arrow Flight SQL.
    pub flight: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

/// A server process. Dropping it kills it.
pub struct Spawned {
    child: Child,
    addresses: Addresses,
}

impl Spawned {
    /// The command line that serves `data` on ports the system chooses.
    pub fn command(program: &Path, data: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--pg-addr", "127.0.0.1:0"])
            .args(["--flight-addr", "127.0.0.1:0"])
            .args(["--http-addr", "127.0.0.1:0"])
            .env("WEIR__AUTH__ADMIN_PASSWORD", PASSWORD)
            .env_remove("FAILPOINTS")
            .stdin(Stdio::null());
        command
    }

    /// Starts the program over `data` and waits until its doors are open. The log goes to
    /// `server.log` in that directory.
    pub async fn start(program: &Path, data: &Path) -> Self {
        let started = Self::try_start(program, data, &[]).await;
        started.unwrap_or_else(|log| panic!("the server ended before it opened its doors:\n{log}"))
    }

    /// The same with something in the environment: settings (`WEIR__…`) or crash points
    /// (`FAILPOINTS`). A server that ends before its doors are open gives the end of its log.
    pub async fn try_start(
        program: &Path,
        data: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        std::fs::create_dir_all(data).expect("data directory");
        // The file of an earlier run would name dead ports.
        let file = data.join("addresses.json");
        if let Err(e) = std::fs::remove_file(&file) {
            assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{e}");
        }
        let log_file = data.join("server.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_file);
        let log = log.expect("server log");
        let mut command = Self::command(program, data);
        command.envs(environment.iter().copied());
        command
            .stdout(log.try_clone().expect("log handle"))
            .stderr(log);
        let mut child = command.spawn().expect("the program starts");
        let log_end = || {
            let text = std::fs::read(&log_file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]);
            text.into_owned()
        };
        let end = Instant::now() + START_LIMIT;
        loop {
            if let Some(addresses) = read_addresses(&file) {
                return Ok(Self { child, addresses });
            }
            if child.try_wait().expect("process state").is_some() {
                return Err(log_end());
            }
            if Instant::now() > end {
                child.kill().expect("kill");
                child.wait().expect("the process ends");
                panic!("no open doors within {START_LIMIT:?}:\n{}", log_end());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Where its doors are.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// A Postgres session of the superuser.
    pub async fn connect(&self) -> PgSession {
        PgSession::open(self.addresses.pg, crate::ADMIN, PASSWORD)
            .await
            .expect("login")
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        // A crash point may have ended it already; that is as good.
        drop(self.child.kill());
        self.child.wait().expect("the process ends");
    }

    /// Whether the process is gone, and how it ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("process state")
    }

    /// Asks it to stop (SIGTERM) and waits for a clean end.
    pub async fn stop(mut self) {
        let asked = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(asked.expect("kill runs").success(), "SIGTERM was sent");
        let end = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.ended() {
                assert!(status.success(), "the server ended with {status}");
                return;
            }
            assert!(
                Instant::now() < end,
                "the server did not stop within {STOP_LIMIT:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("process status");
        let line = text
            .lines()
            .find(|l| l.starts_with("VmRSS:"))
            .expect("VmRSS");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .expect("value")
            .parse()
            .expect("number");
        kib * 1024
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The file is written in one rename, but an older server might not have; half a file is no file.
fn read_addresses(file: &Path) -> Option<Addresses> {
    let text = std::fs::read_to_string(file).ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    let address = |door: &str| json.get(door)?.as_str()?.parse().ok();
    Some(Addresses {
        pg: address("pg")?,
        flight: address("flight")?,
        http: address("http")?,
    })
}
