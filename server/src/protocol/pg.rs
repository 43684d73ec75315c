//! The PostgreSQL door: protocol 3.0 over TCP and TLS.
//!
//! Owns connections, framing, authentication, the simple and extended query flows, `COPY` traffic
//! and cancel keys. SQL, settings and transactions belong to the session behind it. The frames are
//! read and written here and not by `pgwire`'s socket loop, because that loop answers queries
//! after a failed login, collects whole results and panics on short messages; its SCRAM is used.

mod auth;
mod cancel;
mod connection;
mod copy;
mod message;
mod params;
mod portal;
mod reply;
mod rows;
mod startup;
mod wire;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::protocol::calls::SessionCalls;

/// Finds roles and opens their sessions.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// The role's verifier, `SCRAM-SHA-256$iterations:salt$stored key:server key`; `None` when
    /// there is no such role or it has no password.
    async fn scram_verifier(&self, role: &str) -> Result<Option<String>>;

    /// Opens a session for a role whose password was just proven. Refuses roles that may not log
    /// in (28000).
    async fn open(&self, role: &str, peer: SocketAddr) -> Result<Arc<dyn SessionCalls>>;
}

/// What the door can be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections served at a time; one more is told 53300.
    pub max_connections: usize,
    /// Time a client has from connecting to being logged in.
    pub startup_timeout: Duration,
    /// Largest message of a logged-in client, in bytes.
    pub max_message: usize,
    /// How long running statements may go on after the stop.
    pub grace: Duration,
    /// TLS; without it clients that ask for TLS are told there is none.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 1_000,
            startup_timeout: Duration::from_secs(30),
            max_message: 64 << 20,
            grace: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// Connections beyond the limit that are still read, to be told that there are too many (and to
/// let cancel requests through); more are closed at once.
const OVERFLOW: usize = 64;

/// Time between the cancel of late statements at a stop and closing their connections.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Serves connections until `stop`, then waits for running statements (up to the grace time) and
/// closes all connections. Fails only when the listener is of no more use.
pub async fn serve(
    listener: TcpListener,
    auth: Arc<dyn Authenticator>,
    options: Options,
    stop: CancellationToken,
) -> Result<()> {
    let door = Arc::new(startup::Door::new(auth, options, stop.clone()));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                if connections.len() < door.options.max_connections + OVERFLOW {
                    connections.spawn(startup::run(Arc::clone(&door), socket, peer));
                }
            }
            Err(e) => {
                // out of file descriptors, or the peer went away: neither ends the door
                tracing::warn!(error = %e, "cannot accept a postgres connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let drain = async |connections: &mut JoinSet<()>| {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    };
    if tokio::time::timeout(door.options.grace, drain(&mut connections))
        .await
        .is_err()
    {
        door.registry.cancel_all();
        if tokio::time::timeout(LAST_CALL, drain(&mut connections))
            .await
            .is_err()
        {
            tracing::warn!(
                connections = connections.len(),
                "closing connections that did not end"
            );
            connections.shutdown().await;
        }
    }
    Ok(())
}

fn note(ended: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(e) = ended {
        tracing::error!(error = %e, "a postgres connection failed");
    }
}
