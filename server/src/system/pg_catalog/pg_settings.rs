//! `pg_settings`: every setting with its value in this session.

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for setting in cx.settings.iter() {
        frame.row([
            ("name", setting.name.into()),
            ("setting", setting.value.clone().into()),
            ("category", "weir".into()),
            ("short_desc", setting.description.into()),
            ("context", "user".into()),
            ("vartype", "string".into()),
            ("source", "session".into()),
            ("boot_val", setting.value.clone().into()),
            ("reset_val", setting.value.clone().into()),
            ("pending_restart", false.into()),
        ])?;
    }
    Ok(())
}
