//! `weir.models`: the models, with what a bare name means and their aliases.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for model in cx.catalog.models.iter().filter(|m| access.sees_model(m)) {
        frame.row([
            ("oid", model.oid.into()),
            ("model_name", (&model.name).into()),
            ("kind", (&model.kind).into()),
            ("owner", cx.role_name(model.owner).into()),
            ("current_version", model.current.into()),
            ("aliases", aliases(&model.aliases).into()),
        ])?;
    }
    Ok(())
}

fn aliases(aliases: &BTreeMap<String, i32>) -> Vec<String> {
    aliases
        .iter()
        .map(|(name, version)| format!("{name}={version}"))
        .collect()
}
