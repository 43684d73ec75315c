//! A PostgreSQL server of our own, in a temporary directory, reachable by a Unix socket only.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::Connection as _;
use tempfile::TempDir;

pub(crate) struct Server {
    bin: PathBuf,
    dir: TempDir,
    databases: AtomicU32,
}

impl Server {
    /// Starts one, or gives `None` where PostgreSQL's server programs are not installed.
    pub(crate) fn start() -> Option<Self> {
        let bin = server_programs()?;
        let dir = tempfile::tempdir().unwrap();
        let server = Self {
            bin,
            dir,
            databases: AtomicU32::new(0),
        };
        if is_root() {
            // PostgreSQL refuses to run as root
            let path = server.dir.path().to_str().unwrap();
            let status = Command::new("chown").args(["postgres", path]).status();
            assert!(status.unwrap().success(), "give the directory to postgres");
        }
        let (data, socket) = (server.dir.path().join("data"), server.dir.path());
        let data = data.to_str().unwrap();
        server.call("initdb", &["-D", data, "-U", "weir", "-A", "trust", "-N"]);
        let options = format!("-k {} -h '' -c fsync=off", socket.to_str().unwrap());
        let log = socket.join("log");
        server.call(
            "pg_ctl",
            &[
                "-D",
                data,
                "-w",
                "-l",
                log.to_str().unwrap(),
                "-o",
                &options,
                "start",
            ],
        );
        Some(server)
    }

    /// A new empty database.
    pub(crate) async fn fresh_database(&self) -> String {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut admin = sqlx::PgConnection::connect(&self.url("postgres"))
            .await
            .unwrap();
        sqlx::query(&format!("CREATE DATABASE {name}"))
            .execute(&mut admin)
            .await
            .unwrap();
        admin.close().await.unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        let host = self.dir.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://weir@localhost/{database}?host={host}")
    }

    fn call(&self, program: &str, args: &[&str]) {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let quoted: Vec<String> = std::iter::once(program.to_str().unwrap())
                .chain(args.iter().copied())
                .map(|a| format!("'{}'", a.replace('\'', "'\\''")))
                .collect();
            let mut command = Command::new("su");
            command.args(["postgres", "-c", &quoted.join(" ")]);
            command
        } else {
            let mut command = Command::new(program);
            command.args(args);
            command
        };
        // no pipes: the server would keep them open
        let log = std::fs::File::create(self.dir.path().join("setup")).unwrap();
        let status = command
            .current_dir(self.dir.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        let said = std::fs::read_to_string(self.dir.path().join("setup")).unwrap();
        assert!(status.success(), "{command:?}: {said}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.dir.path().join("data");
        self.call(
            "pg_ctl",
            &["-D", data.to_str().unwrap(), "-m", "immediate", "stop"],
        );
    }
}

fn is_root() -> bool {
    Path::new("/proc/self")
        .metadata()
        .is_ok_and(|m| m.uid() == 0)
}

/// The directory that holds `initdb` and `pg_ctl`.
fn server_programs() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")));
    ["/usr/local/bin", "/usr/bin"]
        .into_iter()
        .map(PathBuf::from)
        .chain(installed)
        .find(|bin| bin.join("initdb").exists() && bin.join("pg_ctl").exists())
}
