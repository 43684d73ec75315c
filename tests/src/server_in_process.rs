//! A whole server in this process.

use std::path::Path;
use std::sync::Arc;

use server::config::Config;
use server::engine::Engine;
use server::server::ServerHandle;
use tempfile::TempDir;

use crate::flight::FlightSession;
use crate::http::HttpSession;
use crate::pg::PgSession;
use crate::spawned::Addresses;
use crate::{ADMIN, PASSWORD};

/// A whole server in this process, on ports the system chose, over its own directory.
pub struct TestServer {
    server: ServerHandle,
    dir: TempDir,
}

impl TestServer {
    /// An empty server.
    pub async fn start() -> Self {
        Self::configured(|_| {}).await
    }

    /// An empty server with some settings changed.
    pub async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        Self::over(dir, change).await
    }

    async fn over(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::for_test(dir.path());
        change(&mut config);
        let server = server::server::start(config).await.expect("server starts");
        Self { server, dir }
    }

    /// Stops cleanly, then serves the same directory again.
    pub async fn restart(self) -> Self {
        self.server.shutdown().await.expect("clean shutdown");
        Self::over(self.dir, |_| {}).await
    }

    /// Stops cleanly; a stuck task fails the test.
    pub async fn stop(self) {
        self.server.shutdown().await.expect("clean shutdown");
    }

    /// Where the doors are.
    pub fn addresses(&self) -> Addresses {
        let addrs = self.server.addrs();
        Addresses {
            pg: addrs.pg,
            flight: addrs.flight,
            http: addrs.http,
        }
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A Postgres session of the superuser.
    pub async fn connect(&self) -> PgSession {
        self.connect_as(ADMIN, PASSWORD).await
    }

    /// A Postgres session of any role.
    pub async fn connect_as(&self, user: &str, password: &str) -> PgSession {
        PgSession::open(self.addresses().pg, user, password)
            .await
            .expect("login")
    }

    /// A Flight SQL session of the superuser.
    pub async fn flight(&self) -> FlightSession {
        FlightSession::open(self.addresses().flight, ADMIN, PASSWORD)
            .await
            .expect("login")
    }

    /// HTTP calls of the superuser.
    pub fn http(&self) -> HttpSession {
        HttpSession::new(self.addresses().http, ADMIN, PASSWORD)
    }

    /// What the server serves.
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(self.server.engine())
    }

    /// Where the Delta table of `schema.table` lies.
    pub fn delta_location(&self, schema: &str, table: &str) -> String {
        let catalog = self.server.engine().catalog();
        let relation = catalog
            .relation(schema, table)
            .expect("the relation exists");
        relation
            .location
            .clone()
            .expect("the relation has a Delta table")
    }
}
