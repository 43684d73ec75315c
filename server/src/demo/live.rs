//! The live stream: the clickstream again and again in time order, each round later than the last,
//! with counters.

use std::time::{Duration, Instant};

use super::{Demo, data, say};
use crate::error::Result;
use crate::server::ServerHandle;

/// Events of one request.
const STEP: usize = 100;
/// Requests per second.
const STEPS_PER_SECOND: u64 = 5;
/// A round spans half a year; the next begins where it ended.
const ROUND: Duration = Duration::from_secs(181 * 24 * 3600);

/// Streams until it is dropped.
pub(super) async fn run(demo: &Demo, server: &ServerHandle, fresh: bool) -> Result<()> {
    let mut events = data::events()?;
    events.sort_by_key(data::Event::at);
    let mut round = if fresh { 0 } else { 1 };
    let mut pace = tokio::time::interval(Duration::from_millis(1000 / STEPS_PER_SECOND));
    let mut second = Counter::new();
    loop {
        let shift = ROUND.saturating_mul(round);
        for chunk in events.chunks(STEP) {
            pace.tick().await;
            let lines: String = chunk.iter().map(|e| e.line(shift)).collect();
            let sent = Instant::now();
            demo.send(lines).await?;
            second.events += chunk.len();
            if second.started.elapsed() >= Duration::from_secs(1) {
                let total = demo.value("SELECT count(*) FROM events").await?;
                second.show(&total, sent.elapsed(), server);
                second = Counter::new();
            }
        }
        round += 1;
    }
}

struct Counter {
    started: Instant,
    events: usize,
}

impl Counter {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            events: 0,
        }
    }

    fn show(&self, total: &str, visible: Duration, server: &ServerHandle) {
        let rate = self.events as f64 / self.started.elapsed().as_secs_f64();
        let engine = server.engine();
        let version = engine.catalog().relation("public", "events").and_then(|r| {
            let head = engine.stream.head();
            head.tables.get(&r.oid).map(|t| t.lake.version)
        });
        say(&format!(
            "\r{total} events   {rate:.0} events/s   sent and counted in {:.0} ms   Delta version {}   ",
            visible.as_secs_f64() * 1e3,
            version.unwrap_or_default()
        ));
    }
}
