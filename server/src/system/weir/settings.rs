//! `weir.settings`: every setting with its value in this session.

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for setting in cx.settings.iter() {
        frame.row([
            ("name", setting.name.into()),
            ("value", setting.value.clone().into()),
            ("description", setting.description.into()),
        ])?;
    }
    Ok(())
}
