//! What the doors ask of the database, as traits: a door can be tested over canned answers. No
//! behaviour lies here.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::calls::SessionCalls;
use super::pg::Authenticator;
use crate::decode::Decoded;
use crate::engine::Engine;
use crate::engine::keys::RequestKey;
use crate::error::Result;
use crate::session::{Door, IngestTable, Receipt, Session};
use crate::stream::line::Turn;

/// The database behind a door.
pub trait Backend: Send + Sync {
    /// The SCRAM verifier of a role that may log in by password; `None` for any other name.
    fn verifier(&self, role: &str) -> Option<String>;

    /// Opens a session for an authenticated role.
    fn open(&self, role: &str, door: Door) -> Result<Arc<dyn DataCalls>>;
}

/// A session of a door that also takes whole batches. Contracts stand at [`Session`].
#[async_trait]
pub trait DataCalls: SessionCalls {
    /// Stores rows; durable and visible on return.
    async fn ingest(
        &self,
        schema: &str,
        table: &str,
        rows: Decoded,
        turn: Turn,
        key: Option<RequestKey>,
    ) -> Result<Receipt>;

    /// What [`DataCalls::ingest`] takes for that table.
    async fn ingest_table(&self, schema: &str, table: &str) -> Result<IngestTable>;
}

/// The real database.
#[derive(Debug)]
pub struct EngineBackend(Arc<Engine>);

impl EngineBackend {
    /// Over an open database.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self(engine)
    }
}

impl Backend for EngineBackend {
    fn verifier(&self, role: &str) -> Option<String> {
        let catalog = self.0.catalog();
        let role = catalog.role(role).filter(|r| r.login)?;
        role.scram_verifier.clone()
    }

    fn open(&self, role: &str, door: Door) -> Result<Arc<dyn DataCalls>> {
        let session = Session::open(&self.0, role, door)?;
        Ok(session)
    }
}

#[async_trait]
impl Authenticator for EngineBackend {
    async fn scram_verifier(&self, role: &str) -> Result<Option<String>> {
        Ok(self.verifier(role))
    }

    async fn open(&self, role: &str, _peer: SocketAddr) -> Result<Arc<dyn SessionCalls>> {
        let session = Session::open(&self.0, role, Door::Pg)?;
        Ok(session)
    }
}

#[async_trait]
impl DataCalls for Session {
    async fn ingest(
        &self,
        schema: &str,
        table: &str,
        rows: Decoded,
        turn: Turn,
        key: Option<RequestKey>,
    ) -> Result<Receipt> {
        self.ingest(schema, table, rows, turn, key).await
    }

    async fn ingest_table(&self, schema: &str, table: &str) -> Result<IngestTable> {
        self.ingest_table(schema, table).await
    }
}
