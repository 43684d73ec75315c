//! `weir.sources`: what feeds streaming tables, how far it is and what is wrong with it.

use serde_json::Value;

use crate::error::Result;
use crate::kafka::options;
use crate::system::frame::Frame;
use crate::system::{SourceActivity, SourceState, SystemContext};

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let sources = cx.live.sources();
    for (schema, relation) in cx.relations() {
        if !options::is_source(&relation.options) {
            continue;
        }
        let own = |name: &str| relation.options.get(&format!("source.{name}")).cloned();
        let nothing = SourceActivity::default();
        let source = sources.get(&relation.oid);
        let source = source.unwrap_or(&nothing);
        let state = match options::is_paused(&relation.options) {
            true => SourceState::Paused,
            false => source.state,
        };
        frame.row([
            ("oid", relation.oid.into()),
            ("table_schema", schema.into()),
            ("table_name", (&relation.name).into()),
            ("kind", relation.options.get(options::KIND).cloned().into()),
            ("brokers", own("brokers").into()),
            ("topic", own("topic").into()),
            (
                "format",
                own("format").unwrap_or_else(|| "json".to_owned()).into(),
            ),
            ("state", state.word().into()),
            ("partitions", (source.partitions.len() as i64).into()),
            ("offsets", offsets(source, |p| Some(p.next)).into()),
            ("end_offsets", offsets(source, |p| p.end).into()),
            ("lag", source.lag().into()),
            ("messages", source.messages.cast_signed().into()),
            ("rows", source.rows.cast_signed().into()),
            ("rejected", source.rejected.cast_signed().into()),
            ("bytes", source.bytes.cast_signed().into()),
            ("messages_per_second", source.per_second.into()),
            ("last_message_at", source.last_message_at.into()),
            ("last_error", source.last_error.clone().into()),
            ("last_error_at", source.last_error_at.into()),
            ("started_at", source.started_at.into()),
        ])?;
    }
    Ok(())
}

/// A JSON object: partition → offset.
fn offsets(
    source: &SourceActivity,
    of: impl Fn(&crate::system::SourcePartition) -> Option<i64>,
) -> String {
    let all = source.partitions.iter();
    let known = all.filter_map(|(n, p)| Some((n.to_string(), Value::from(of(p)?))));
    Value::Object(known.collect()).to_string()
}
