//! `weir.model_versions`: every trained state of every model, with its query and metrics.

use crate::error::Result;
use crate::system::frame::Frame;
use crate::system::{SystemContext, option_list};

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for version in &cx.catalog.model_versions {
        let model = cx.catalog.models.iter().find(|m| m.oid == version.model);
        let Some(model) = model.filter(|m| access.sees_model(m)) else {
            continue;
        };
        let aliases: Vec<String> = model
            .aliases
            .iter()
            .filter(|(_, number)| **number == version.number)
            .map(|(name, _)| name.clone())
            .collect();
        frame.row([
            ("model_name", (&model.name).into()),
            ("version", version.number.into()),
            ("current", (model.current == version.number).into()),
            ("aliases", aliases.into()),
            ("query", (&version.query).into()),
            ("options", option_list(&version.options).into()),
            ("metrics", version.metrics.to_string().into()),
            ("trained_at", version.trained_at_micros.into()),
        ])?;
    }
    Ok(())
}
