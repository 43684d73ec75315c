//! Accepting connections for the doors that speak HTTP: limits, TLS, ordered stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::metrics::Connected;
use crate::tasks::logging_panics;

/// A client that connects and says nothing is let go after this.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Pause when the system cannot give a connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One connection, encrypted or not.
pub(super) type Io = Either<TcpStream, TlsStream<TcpStream>>;

/// How a door accepts.
pub(super) struct Accept {
    /// Its name in logs and metrics.
    pub(super) door: &'static str,
    /// Where it listens.
    pub(super) listener: TcpListener,
    /// Connections at a time; more wait in the system's queue.
    pub(super) max_connections: usize,
    /// Set when the door speaks TLS.
    pub(super) tls: Option<TlsAcceptor>,
    /// Cancelled to stop.
    pub(super) stop: CancellationToken,
}

impl Accept {
    /// Hands each connection to `serve` in a task of its own until the stop; then waits for all to
    /// end. `serve` gets the stop token too and must end soon after it is cancelled.
    pub(super) async fn run<S, F>(self, serve: S) -> Result<()>
    where
        S: Fn(Io, CancellationToken) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let serve = Arc::new(serve);
        let mut connections = JoinSet::new();
        let slots = Arc::new(Semaphore::new(self.max_connections));
        loop {
            while connections.try_join_next().is_some() {}
            let next = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = self.stop.cancelled() => break,
                next = next => next,
            };
            let slot = slot.map_err(|_| Error::Internal("connection slots are closed".into()))?;
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(e) => {
                    tracing::warn!(door = self.door, error = %e, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // acknowledgements are small and must not wait for more to send
            if let Err(e) = socket.set_nodelay(true) {
                tracing::debug!(door = self.door, error = %e, "cannot set TCP_NODELAY");
            }
            let (door, tls, stop) = (self.door, self.tls.clone(), self.stop.clone());
            let serve = Arc::clone(&serve);
            connections.spawn(logging_panics(door, async move {
                let _held = (slot, Connected::new(door));
                if let Some(io) = secured(socket, tls).await {
                    serve(io, stop).await;
                }
            }));
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

async fn secured(socket: TcpStream, tls: Option<TlsAcceptor>) -> Option<Io> {
    let Some(tls) = tls else {
        return Some(Either::Left(socket));
    };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, tls.accept(socket)).await {
        Ok(Ok(stream)) => Some(Either::Right(stream)),
        Ok(Err(e)) => {
            tracing::debug!(error = %e, "TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}
