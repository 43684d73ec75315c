//! What views store, compared with their sources: a few keys of one view at a time, on a thread that
//! gives way to everything else.

use std::collections::HashMap;
use std::sync::Arc;

use catalog::Oid;

use super::registry::{Amount, Trigger, canceled};
use crate::engine::Engine;
use crate::error::Result;
use crate::lake::Compute;
use crate::views::refresh::Verdict;

/// The view that was not looked at for longest.
pub(super) fn next(engine: &Engine, last: &mut HashMap<Oid, u64>) -> Option<Oid> {
    let head = engine.stream.head();
    last.retain(|oid, _| head.views.contains_key(oid));
    engine
        .jobs
        .forget_verified(|oid| head.views.contains_key(&oid));
    let newest = last.values().copied().max().unwrap_or(0);
    let all = head.views.keys().copied();
    let due = all.min_by_key(|oid| (last.get(oid).copied().unwrap_or(0), oid.0))?;
    last.insert(due, newest + 1);
    Some(due)
}

/// Compares about so many keys of a view; what differs is logged, counted, and left as it is.
pub(super) async fn verify(engine: &Arc<Engine>, view: Oid, keys: usize) -> Result<()> {
    let job = engine.jobs.begin("verify", view, Trigger::Schedule);
    let stop = job.stop().clone();
    let compared = async {
        let thread = Compute::start(1)?;
        let engine = Arc::clone(engine);
        let stop = stop.clone();
        let work = async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(canceled()),
                verdict = Box::pin(engine.refresher.verify(view, keys)) => verdict,
            }
        };
        thread.run(work).await
    };
    let result: Result<Verdict> = compared.await;
    let detail = match &result {
        Ok(Verdict::Skipped(reason)) => Some(format!("not compared: {reason}")),
        Ok(Verdict::Compared { keys, wrong: 0 }) => Some(format!("{keys} keys agree")),
        Ok(Verdict::Compared { keys, wrong }) => Some(format!("{wrong} of {keys} keys differ")),
        Err(_) => None,
    };
    if let Ok(Verdict::Compared { keys, wrong }) = &result {
        job.advance(Amount {
            rows: *keys as u64,
            ..Amount::default()
        });
        engine.jobs.compared(view, *wrong);
        if *wrong > 0 {
            let catalog = engine.catalog();
            let relation = catalog.relation_by_oid(view);
            let name = relation.map(|r| catalog.qualified_name(r));
            tracing::error!(
                view = name.unwrap_or_else(|| view.to_string()),
                wrong,
                keys,
                "the state of a materialized view differs from its sources"
            );
        }
    }
    job.end(&result, detail);
    result.map(drop)
}
