//! `weir.*`: weir's own view of itself, one file per table.

mod audit_log;
mod columns;
mod compaction_history;
mod dead_letters;
mod dependencies;
mod grants;
mod jobs;
mod lineage_edges;
mod materialized_views;
mod model_versions;
mod models;
mod queries;
mod roles;
mod settings;
mod sources;
mod tables;

use std::sync::Arc;

use catalog::Snapshot;
use datafusion::catalog::TableProvider;
use serde::Serialize;

use super::SystemContext;
use super::frame::Frame;
use crate::error::{Error, Result};

/// Fills the frame, or gives a table of its own for what is too long to hold.
pub(super) async fn fill(
    name: &str,
    frame: &mut Frame,
    cx: &Arc<SystemContext>,
) -> Result<Option<Arc<dyn TableProvider>>> {
    match name {
        "audit_log" => return audit_log::table(frame, cx).map(Some),
        "dead_letters" => return dead_letters::table(frame, cx),
        "columns" => columns::fill(frame, cx)?,
        "compaction_history" => compaction_history::fill(frame, cx)?,
        "dependencies" => dependencies::fill(frame, cx)?,
        "grants" => grants::fill(frame, cx)?,
        "jobs" => jobs::fill(frame, cx)?,
        "lineage_edges" => lineage_edges::fill(frame, cx).await?,
        "materialized_views" => materialized_views::fill(frame, cx)?,
        "model_versions" => model_versions::fill(frame, cx)?,
        "models" => models::fill(frame, cx)?,
        "queries" => queries::fill(frame, cx)?,
        "roles" => roles::fill(frame, cx)?,
        "settings" => settings::fill(frame, cx)?,
        "sources" => sources::fill(frame, cx)?,
        "tables" => tables::fill(frame, cx)?,
        other => {
            return Err(Error::Internal(format!(
                "no rows are made for weir.{other}"
            )));
        }
    }
    Ok(None)
}

/// The kebab-case word of an enum value, as the catalog stores it.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// `schema.name` of a relation or the name of a model; the number of what was dropped.
fn object_name(catalog: &Snapshot, oid: catalog::Oid) -> String {
    if let Some(relation) = catalog.relation_by_oid(oid) {
        return catalog.qualified_name(relation);
    }
    let model = catalog.models.iter().find(|m| m.oid == oid);
    model.map_or_else(|| oid.to_string(), |m| m.name.clone())
}
