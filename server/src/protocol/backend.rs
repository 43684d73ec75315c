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
use crate::governance::write_key;
use crate::session::{Door, IngestTable, Receipt, Session};
use crate::stream::line::Turn;

/// The database behind a door.
pub trait Backend: Send + Sync {
    /// The SCRAM verifier of a role that may log in by password; `None` for any other name.
    fn verifier(&self, role: &str) -> Option<String>;

    /// Opens a session for an authenticated role.
    fn open(&self, role: &str, door: Door) -> Result<Arc<dyn DataCalls>>;

    /// What a write key opens; `None` for a key that no table has.
    fn keyed(&self, key: &str) -> Option<Keyed>;
}

/// A table that a write key lets rows into.
pub struct Keyed {
    /// A session that may add rows to it, and nothing else.
    pub session: Arc<dyn DataCalls>,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its event time, if it has one.
    pub event_time: Option<String>,
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyed")
            .field("schema", &self.schema)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
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

    /// Another session like it.
    fn sibling(&self) -> Result<Arc<dyn DataCalls>>;
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

    fn keyed(&self, key: &str) -> Option<Keyed> {
        let catalog = self.0.catalog();
        let relation = write_key::table_of(&catalog, key)?;
        let schema = catalog.schema_by_oid(relation.schema)?;
        Some(Keyed {
            session: Session::open_for_writes(&self.0, &catalog.qualified_name(relation), relation),
            schema: schema.name.clone(),
            table: relation.name.clone(),
            event_time: relation.options.get("event_time").cloned(),
        })
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

    fn sibling(&self) -> Result<Arc<dyn DataCalls>> {
        let session = self.sibling()?;
        Ok(session)
    }
}
