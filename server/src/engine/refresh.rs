//! What the view refresher needs: views planned over a head with their owners' rights, and commits.

use std::sync::{Arc, Weak};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use catalog::{Oid, Relation};

use super::Engine;
use super::names::defining_plan;
use super::scope::{Caller, Scope};
use crate::error::{Error, Result};
use crate::stream::head::{DbHead, Lsn};
use crate::views::{Host, Planned};

/// The engine, held loosely: it owns the refresher.
#[derive(Debug)]
pub struct EngineHost(Weak<Engine>);

impl EngineHost {
    /// Over an engine that is being made.
    pub fn new(engine: Weak<Engine>) -> Self {
        Self(engine)
    }

    fn engine(&self) -> Result<Arc<Engine>> {
        self.0
            .upgrade()
            .ok_or_else(|| Error::Internal("the database is closed".to_owned()))
    }
}

#[async_trait]
impl Host for EngineHost {
    fn head(&self) -> Arc<DbHead> {
        self.0
            .upgrade()
            .map(|e| e.stream.head())
            .unwrap_or_default()
    }

    fn views(&self) -> Vec<(Oid, Oid)> {
        let Some(engine) = self.0.upgrade() else {
            return Vec::new();
        };
        let catalog = engine.catalog();
        catalog
            .relations
            .iter()
            .filter_map(|r| Some((r.oid, r.materialized.as_ref()?.source)))
            .collect()
    }

    async fn plan(&self, view: Oid, head: &Arc<DbHead>) -> Result<Planned> {
        let engine = self.engine()?;
        let caller = Caller::system();
        let scope = Scope::over(&engine, caller, Arc::clone(head));
        let relation = relation(&scope.catalog, view)?.clone();
        let (session, plan) = defining_plan(&Arc::new(scope), &relation).await?;
        Ok(Planned {
            name: relation.name,
            session,
            plan,
        })
    }

    async fn commit_state(
        &self,
        view: Oid,
        source: Oid,
        batches: Vec<RecordBatch>,
        durable: Lsn,
    ) -> Result<()> {
        self.engine()?
            .stream
            .commit_state(view, source, batches, durable)
            .await
    }

    async fn replace_state(
        &self,
        view: Oid,
        source: Oid,
        batches: Vec<RecordBatch>,
        durable: Lsn,
    ) -> Result<()> {
        self.engine()?
            .stream
            .replace_state(view, source, batches, durable)
            .await
    }
}

fn relation(catalog: &catalog::Snapshot, view: Oid) -> Result<&Relation> {
    catalog
        .relation_by_oid(view)
        .ok_or_else(|| Error::undefined_table(&view.to_string()))
}
