//! `weir serve`: runs the server until a signal or a fault, then stops it in order.

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::server;

/// Serves until SIGINT or SIGTERM (a clean stop) or until a part of the server fails (an error).
pub(super) async fn run(config: Config) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::io("listen to signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("listen to signals"))?;
    let starting = server::start(config);
    let mut handle = tokio::select! {
        handle = starting => handle?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    if let Some(password) = handle.engine().take_generated_password() {
        // standard error, and not the log: it is shown once and kept nowhere
        let note = format!(
            "\n  The superuser is weir, its password is {}\n  \
             It is shown only now. Set WEIR__AUTH__ADMIN_PASSWORD to choose your own.\n\n",
            password.0
        );
        let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), note.as_bytes());
    }
    let fault = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        (task, fault) = handle.failed() => {
            tracing::error!(task, error = %fault, "a part of the server failed; stopping");
            Some(fault)
        }
    };
    tracing::info!("stopping");
    let stopped = handle.shutdown().await;
    match fault {
        Some(fault) => Err(fault),
        None => stopped,
    }
}
