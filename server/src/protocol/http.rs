//! The HTTP door: rows in, SQL, and the service endpoints.
//!
//! Owns routing, content types, compression and body limits. Tables and SQL belong to the session
//! behind it.

mod body;
mod problem;
mod rows;
mod segment;
mod service;
mod sql;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::problem::Problem;
use super::admission::Admission;
use super::buffers::Buffers;
use super::credentials::{Caller, Credentials};
use super::listen::Accept;
use crate::config::Config;
use crate::error::{Error, Result, SqlState};
use crate::metrics;
use crate::session::Door;
use crate::tls::Tls;

/// A client that does not finish its headers in this time is let go.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);

/// What the bodies of statements may hold together.
const STATEMENT_BYTES: usize = 64 << 20;

/// What every handler shares.
#[derive(Clone)]
struct Shared {
    credentials: Arc<Credentials>,
    /// Whose rows are worked on,
    admission: Admission,
    /// what rows may hold,
    buffers: Buffers,
    /// and for statements: those are answered also when there are too many rows.
    statements: Buffers,
    max_body: usize,
    segment: SegmentLimits,
    /// Cancelled when the server stops: it is not ready any more.
    stop: CancellationToken,
}

/// How large requests of Segment's libraries may be, in bytes.
#[derive(Debug, Clone, Copy)]
struct SegmentLimits {
    /// A request, also once decompressed.
    body: usize,
    /// One event.
    message: usize,
}

/// Serves connections until `stop`, then waits for running requests.
pub fn serve(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    admission: Admission,
    buffers: &Buffers,
    config: &Config,
    tls: Option<&Tls>,
    stop: CancellationToken,
) -> impl Future<Output = Result<()>> + Send + 'static {
    let router = router(Shared {
        credentials,
        admission,
        buffers: buffers.clone(),
        statements: Buffers::new(STATEMENT_BYTES),
        max_body: config.max_body,
        segment: SegmentLimits {
            body: config.segment_body,
            message: config.segment_message,
        },
        stop: stop.clone(),
    });
    let accept = Accept {
        door: "http",
        listener,
        max_connections: config.max_connections,
        tls: tls.map(|t| t.acceptor(&["http/1.1"])),
        stop,
    };
    accept.run(move |io, stop| {
        let service = TowerToHyperService::new(router.clone());
        async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_DEADLINE)
                .serve_connection(TokioIo::new(io), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(e) = ended {
                tracing::debug!(error = %e, "http connection ended");
            }
        }
    })
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/tables/{schema}/{table}/rows", post(rows::post))
        .route("/v1/sql", post(sql::post))
        .route(
            "/v1/{call}",
            post(segment::post).options(segment::preflight),
        )
        .route("/healthz", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .route("/metrics", get(service::metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(count))
        .with_state(shared)
}

impl Shared {
    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let header = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok());
        Ok(self.credentials.caller(header, Door::Http).await?)
    }
}

/// The media type of a header's value, without parameters, in lower case.
fn media_type(value: &str) -> String {
    let bare = value.split(';').next().unwrap_or(value);
    bare.trim().to_ascii_lowercase()
}

async fn count(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    metrics::http_request(response.status().as_u16());
    response
}

async fn no_such_path(request: Request) -> Problem {
    let text = format!("path \"{}\" does not exist", request.uri().path());
    Problem::with_status(404, Error::refused(SqlState::UNDEFINED_OBJECT, text))
}

async fn no_such_method(request: Request) -> Problem {
    let text = format!(
        "method {} is not supported for path \"{}\"",
        request.method(),
        request.uri().path()
    );
    Problem::with_status(405, Error::refused(SqlState::FEATURE_NOT_SUPPORTED, text))
}
