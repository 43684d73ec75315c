//! Deleting files that left their table long ago, and what failed commits left behind.

use std::sync::Arc;
use std::time::Duration;

use catalog::Oid;

use super::registry::{Amount, Handle, Trigger};
use crate::engine::Engine;
use crate::error::Result;
use crate::lake::{self, Garbage};

/// How long files of a view's state stay: nobody reads older versions of it.
const STATE_RETENTION: Duration = Duration::from_secs(60 * 60);

/// The files that [`vacuum`] would delete.
pub async fn candidates(engine: &Engine, oid: Oid, keep: Duration) -> Result<Vec<Garbage>> {
    Ok(engine.stream.garbage(oid, keep).await?.1)
}

/// Deletes files that nothing has needed for longer than `keep`; they are given. The caller has the
/// table's turn: no older version is restored meanwhile.
pub async fn vacuum(
    engine: &Engine,
    oid: Oid,
    keep: Duration,
    job: &Handle,
) -> Result<Vec<Garbage>> {
    let (lake, garbage) = engine.stream.garbage(oid, keep).await?;
    job.expect(amount(&garbage));
    for file in &garbage {
        job.check()?;
        lake::sweep(&lake, file).await?;
        job.advance(amount(std::slice::from_ref(file)));
    }
    Ok(garbage)
}

/// One line about it.
pub fn told(garbage: &[Garbage]) -> String {
    format!("{} files deleted", garbage.len())
}

/// The background's vacuum of one table or view state.
pub(super) async fn scheduled(
    engine: &Arc<Engine>,
    oid: Oid,
    is_state: bool,
    keep: Duration,
) -> Result<()> {
    let keep = match is_state {
        true => keep.min(STATE_RETENTION),
        false => keep,
    };
    let Some(_turn) = engine.jobs.turn_now(oid) else {
        return Ok(());
    };
    if candidates(engine, oid, keep).await?.is_empty() {
        return Ok(());
    }
    let job = engine.jobs.begin("vacuum", oid, Trigger::Schedule);
    let result = vacuum(engine, oid, keep, &job).await;
    let detail = result.as_ref().ok().map(|garbage| told(garbage));
    job.end(&result, detail);
    result.map(|_| ())
}

fn amount(garbage: &[Garbage]) -> Amount {
    Amount {
        files: garbage.len() as u64,
        rows: 0,
        bytes: garbage.iter().map(|g| g.size).sum(),
    }
}
