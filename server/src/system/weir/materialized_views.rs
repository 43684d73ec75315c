//! `weir.materialized_views`: how each materialized view is kept and how far its state is.

use super::{object_name, word};
use crate::engine::open::location;
use crate::error::Result;
use crate::stream::published_at;
use crate::system::SystemContext;
use crate::system::frame::Frame;
use crate::views::explain::state_bytes;
use crate::views::refresh::lag;
use crate::views::{Kept, OnSourceChange};

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations() {
        let (Some(view), Some(kept)) = (&relation.materialized, Kept::of(relation)?) else {
            continue;
        };
        let head = cx.head.views.get(&relation.oid);
        let verified = cx.jobs.as_ref().map(|j| j.verified(relation.oid));
        let verified = verified.unwrap_or_default();
        let mismatches = i64::try_from(verified.mismatches).unwrap_or(i64::MAX);
        frame.row([
            ("oid", relation.oid.into()),
            ("view_schema", schema.into()),
            ("view_name", (&relation.name).into()),
            ("owner", cx.role_name(relation.owner).into()),
            ("strategy", word(&view.strategy).into()),
            ("codes", view.codes.clone().into()),
            ("source", object_name(&cx.catalog, kept.source).into()),
            (
                "sources",
                kept.sources
                    .iter()
                    .map(|oid| object_name(&cx.catalog, *oid))
                    .collect::<Vec<String>>()
                    .into(),
            ),
            ("on_source_change", on_source_change(&kept).into()),
            ("schedule", relation.options.get("schedule").cloned().into()),
            (
                "retention",
                relation.options.get("retention").cloned().into(),
            ),
            ("floor_at", head.and_then(|h| h.floor.at).into()),
            ("late_dropped", head.map(|h| h.floor.late).into()),
            ("state_format", view.state_format.into()),
            ("definition", relation.query.clone().into()),
            ("location", relation.location.clone().into()),
            (
                "published",
                relation.options.get("published").cloned().into(),
            ),
            (
                "published_location",
                kept.options
                    .published
                    .and_then(|_| location(relation).ok())
                    .and_then(|root| published_at(&root).ok())
                    .map(|at| at.to_string())
                    .into(),
            ),
            ("durable_lsn", head.map(|h| h.durable.0).into()),
            ("lag", head.map(|_| lag(&kept, &cx.head)).into()),
            ("last_refresh_at", head.and_then(|h| h.refreshed_at).into()),
            ("state_files", head.map(|h| h.state.files.len()).into()),
            ("state_bytes", state_bytes(&kept, &cx.head).into()),
            ("last_verified_at", verified.at_micros.into()),
            ("mismatches", mismatches.into()),
        ])?;
    }
    Ok(())
}

fn on_source_change(kept: &Kept) -> &'static str {
    match kept.on_source_change() {
        OnSourceChange::Fail => "fail",
        OnSourceChange::Ignore => "ignore",
        OnSourceChange::Recompute => "recompute",
    }
}
