//! `/healthz`, `/readyz`, `/metrics`: open, and without any data of users.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::Shared;
use crate::metrics;

/// The process lives.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The server takes requests. It binds only after recovery, so it is ready until it stops.
pub(super) async fn readyz(State(shared): State<Shared>) -> impl IntoResponse {
    match shared.stop.is_cancelled() {
        false => (StatusCode::OK, "ready\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

/// Counters in Prometheus' text form.
pub(super) async fn metrics() -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics::render())
}
