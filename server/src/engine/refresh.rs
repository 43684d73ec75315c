//! What the view refresher needs: views planned over a head with their owners' rights, and commits.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use catalog::{Oid, Relation};
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::activity::now_micros;
use super::names::defining_plan;
use super::scope::{Caller, Scope};
use crate::error::{Error, Result};
use crate::jobs::{self, Amount, Trigger};
use crate::stream::StateChange;
use crate::stream::head::DbHead;
use crate::views::refresh::{By, Progress, session_in};
use crate::views::{Host, Kept, Planned};

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

    fn views(&self) -> Vec<Kept> {
        let Some(engine) = self.0.upgrade() else {
            return Vec::new();
        };
        let catalog = engine.catalog();
        // options were checked when they were given
        let kept = catalog.relations.iter().map(Kept::of);
        kept.filter_map(|kept| kept.ok().flatten()).collect()
    }

    fn kept(&self, view: Oid) -> Option<Kept> {
        let catalog = self.0.upgrade()?.catalog();
        Kept::of(catalog.relation_by_oid(view)?).ok().flatten()
    }

    async fn plan(&self, view: Oid, head: &Arc<DbHead>) -> Result<Planned> {
        let engine = self.engine()?;
        let caller = Caller::system();
        let scope = Scope::over(&engine, caller, Arc::clone(head));
        let relation = relation(&scope.catalog, view)?.clone();
        let (session, plan) = defining_plan(&Arc::new(scope), &relation).await?;
        Ok(Planned {
            name: relation.name,
            session: session_in(session, engine.view_runtime()),
            plan,
        })
    }

    async fn commit_state(&self, view: Oid, change: StateChange) -> Result<()> {
        self.engine()?.stream.commit_state(view, change).await
    }

    fn begin(&self, name: &'static str, view: Oid, by: By) -> Box<dyn Progress> {
        let job = self.0.upgrade().map(|engine| {
            let trigger = match by {
                By::Statement => Trigger::Statement,
                By::Schedule => Trigger::Schedule,
            };
            engine.jobs.begin(name, view, trigger)
        });
        Box::new(ViewJob { job, by })
    }
}

/// The background stores views all the time: what took less is not kept in `weir.jobs`.
const WORTH_TELLING: i64 = 1_000_000;

/// A view's work in `weir.jobs`.
#[derive(Debug)]
struct ViewJob {
    job: Option<jobs::Handle>,
    by: By,
}

impl Progress for ViewJob {
    fn expect(&self, positions: u64) {
        if let Some(job) = &self.job {
            job.expect(rows(positions));
        }
    }

    fn advance(&self, positions: u64) {
        if let Some(job) = &self.job {
            job.advance(rows(positions));
        }
    }

    fn stop(&self) -> CancellationToken {
        self.job
            .as_ref()
            .map(|job| job.stop().clone())
            .unwrap_or_default()
    }

    fn end(self: Box<Self>, error: Option<&Error>, detail: Option<String>) {
        let Some(job) = self.job else {
            return;
        };
        let took = now_micros().saturating_sub(job.started_at());
        let small = self.by == By::Schedule && took < WORTH_TELLING;
        match error {
            None if small => job.forget(),
            error => job.ended(error, detail),
        }
    }
}

fn rows(rows: u64) -> Amount {
    Amount {
        rows,
        ..Amount::default()
    }
}

fn relation(catalog: &catalog::Snapshot, view: Oid) -> Result<&Relation> {
    catalog
        .relation_by_oid(view)
        .ok_or_else(|| Error::undefined_table(&view.to_string()))
}
